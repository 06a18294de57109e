"""Messages about a turn, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.cli.terminal import harmless
from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning
from unbroken.core.events import Usage
from unbroken.core.failures import Phase
from unbroken.core.paths import DIRECT
from unbroken.core.report import AttemptReport, Report
from unbroken.drivers.notices import background, continued, restarted, resumed

_NEXT_STEPS = {
    "connection_refused": "is the server running, and the URL right?",
    "connect_timeout": "is the URL right? --connect SECONDS waits longer",
    "no_route": "is the network up?",
    "not_connected": "is there a firewall or a sandbox, or are all file descriptors in use?",
    "no_such_host": "check the spelling of the URL",
    "dns_temporary": "is the network up?",
    "certificate": "if the authority is one of your own, name its file with --ca-file; a captive portal has one, too",
    "tls_mismatch": "does the server speak https at all? If not, write http://",
}
"""What to do about a server to which no connection could be made, by the code of the failure."""

_SCHEMES = "is its scheme right (http, https, socks5, socks5h)?"

_PROXY_STEPS = {
    "proxy_unreachable": "is the proxy running?",
    "proxy_cannot_reach": "the proxy runs; its log says why it cannot reach the server",
    "proxy_closed": f"{_SCHEMES} If it is, its log says why it cannot reach the server",
    "proxy_auth": "give user and password in the proxy's URL",
    "proxy_refused": "the proxy's rules do not allow this server",
    "proxy_protocol": _SCHEMES,
    "captive_portal": "open a page in a browser and log in to the network",
    "connect_timeout": f"{_SCHEMES} --connect SECONDS waits longer",
    "no_route": "is the network up?",
    "no_such_host": "check the spelling of the proxy's URL",
    "dns_temporary": "is the network up?",
}
"""What to do about a proxy on the way, by the code of the failure."""


_STATUSES_OF_PROXIES = frozenset({403, 500, 502, 503, 504, 511})
"""Statuses with which proxies say that they cannot, or may not, reach a server."""


def next_step(report: Report, url: str) -> str:
    """Return what to do about a server or a proxy that could not be reached, ``""`` if nothing is known.

    Args:
        report: the report of the turn.
        url: the base URL that was asked; it holds no credentials.
    """
    if not report.attempts:
        return ""
    last = report.attempts[-1]
    failure = last.failure or ""
    if "://" in last.path and (step := _PROXY_STEPS.get(failure) or _answer_of_proxy(last, url)):
        source = f" ({last.path_source})" if last.path_source else ""
        if any(attempt.path == DIRECT for attempt in report.attempts):
            return f"  {last.path}{source}: {step}"
        joint = "" if step.endswith("?") else ";"
        around = "--no-proxy in its place" if last.path_source == "--proxy" else "--no-proxy"
        return f"  {last.path}{source}: {step}{joint} {around} goes without it"
    hint = _NEXT_STEPS.get(failure)
    return f"  {url}: {hint}" if hint else ""


def _answer_of_proxy(attempt: AttemptReport, url: str) -> str:
    """Return what to say of a status that a proxy may have answered itself: it forwards what goes to ``http://``."""
    forwarded = attempt.path.startswith("http") and url.startswith("http://")
    return "the answer may be the proxy's own" if forwarded and attempt.status in _STATUSES_OF_PROXIES else ""


def footer(usage: Usage, report: Report) -> str:
    """Return a line such as ``  · 10 tok · in 7 (0 cached / 7 new) · out 3``, with the number of lost attempts."""
    parts = ["", "no token count"]
    if usage.input_tokens is not None and usage.output_tokens is not None:
        reasoning = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
        parts = [
            "",
            f"{usage.total} tok",
            f"in {usage.input_tokens} ({usage.cached_tokens or 0} cached / {usage.new} new)",
            f"out {usage.output_tokens}{reasoning}",
        ]
    if report.lost:
        parts.append(f"{report.lost} attempt{'s' * (report.lost > 1)} lost")
    if report.seams:
        parts.append(continued([seam.character for seam in report.seams]))
    if report.resumes:
        parts.append(resumed([resume.after for resume in report.resumes]))
    if report.restarts:
        parts.append(restarted([restart.character for restart in report.restarts]))
    return " " + " · ".join(parts)


def attempt_line(attempt: AttemptReport) -> str:
    """Describe one attempt, for ``--verbose``."""
    outcome = attempt.failure or "answered"
    status = f", HTTP {attempt.status}" if attempt.status else ""
    over = f" over {attempt.http_version}" if attempt.http_version else ""
    route = attempt.route
    pinged = f", {route.pings_answered} of {route.pings_sent} PINGs answered" if route.pings_sent else ""
    held = ", all held," if attempt.held else ""
    by = f" by {attempt.path}" if "://" in attempt.path else ""
    detail = f" ({harmless(attempt.detail)})" if attempt.detail else ""
    return (
        f"attempt {attempt.number}: {outcome}{detail} in {attempt.phase}{held} after {attempt.elapsed:.1f} s, "
        f"{attempt.silent:.1f} s silent{status}{over}{by}{pinged}; billed: {attempt.billed}"
    )


def remarks(answer: Answer, report: Report) -> list[str]:
    """Return what a reader of the answer should know about it, mostly nothing."""
    found = [*_delivery(report)]
    reason, meaning = harmless(answer.finish_reason or "none"), answer.finish_meaning
    if meaning in (FinishMeaning.LENGTH, FinishMeaning.FILTERED):
        found.append(meaning.value)
    elif not (answer.text or answer.refusal or answer.tool_calls or answer.partial_tool_calls):
        found.append(f"the answer is empty (finish reason: {reason})")
    elif meaning is FinishMeaning.STOPPED:
        found.append(f"{meaning.value} (finish reason: {reason})")
    elif meaning is None and answer.finish_reason:
        found.append(f"the finish reason {reason!r} is not one that is known: the answer may not be whole")
    unfinished = (harmless(call.name or call.id or "without a name") for call in answer.partial_tool_calls)
    return [*found, *(f"the tool call {name} is not complete" for name in unfinished)]


def _delivery(report: Report) -> Iterator[str]:
    """Yield what was unusual about the way in which a whole answer came."""
    failure = report.attempts[-1].failure if report.attempts else None
    if failure == "other_content":
        yield "the server did not stream: the answer came in one piece"
    elif report.unproven_end:
        yield "the server said how the answer ended, and then did not end the stream: what may have followed is lost"
    elif failure and report.attempts[-1].phase in (Phase.SETTLED, Phase.COMPLETE):
        detail = f" ({harmless(report.attempts[-1].detail)})" if report.attempts[-1].detail else ""
        yield f"after the end of the answer the stream failed: {failure.replace('_', ' ')}{detail}"
    if told := background(report):
        yield told
