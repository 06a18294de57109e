"""Messages about a turn, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.cli.terminal import harmless
from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning
from unbroken.core.events import Usage
from unbroken.core.failures import Phase
from unbroken.core.next_steps import NEXT_STEPS, PROXY_STEPS, STATUSES_OF_PROXIES
from unbroken.core.paths import DIRECT
from unbroken.core.report import AttemptReport, Report
from unbroken.drivers.notices import background, continued, restarted, resumed


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
    if "://" in last.path and (step := PROXY_STEPS.get(failure) or _answer_of_proxy(last, url)):
        source = f" ({last.path_source})" if last.path_source else ""
        if any(attempt.path == DIRECT for attempt in report.attempts):
            return f"  {last.path}{source}: {step}"
        joint = "" if step.endswith("?") else ";"
        around = "--no-proxy in its place" if last.path_source == "--proxy" else "--no-proxy"
        return f"  {last.path}{source}: {step}{joint} {around} goes without it"
    hint = NEXT_STEPS.get(failure)
    return f"  {url}: {hint}" if hint else ""


def _answer_of_proxy(attempt: AttemptReport, url: str) -> str:
    """Return what to say of a status that a proxy may have answered itself: it forwards what goes to ``http://``."""
    forwarded = attempt.path.startswith("http") and url.startswith("http://")
    return "the answer may be the proxy's own" if forwarded and attempt.status in STATUSES_OF_PROXIES else ""


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
