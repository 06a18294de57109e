"""What is said about a turn, in lines for a person."""

from __future__ import annotations

from unbroken.cli.terminal import harmless
from unbroken.core.events import Usage
from unbroken.core.report import AttemptReport, Report

_ENDINGS = {
    "length": "the answer stops at the limit of tokens",
    "content_filter": "the provider's content filter stopped the answer",
}


def footer(usage: Usage, report: Report) -> str:
    """Such as ``  · 10 tok · in 7 (0 cached / 7 new) · out 3``, and what was lost on the way."""
    parts = ["", "no token count"]
    if usage.input is not None and usage.output is not None:
        reasoning = f" ({usage.reasoning} reasoning)" if usage.reasoning else ""
        parts = [
            "",
            f"{usage.total} tok",
            f"in {usage.input} ({usage.cached or 0} cached / {usage.new} new)",
            f"out {usage.output}{reasoning}",
        ]
    if report.lost:
        parts.append(f"{report.lost} attempt{'s' * (report.lost > 1)} lost")
    return " " + " · ".join(parts)


def attempt_line(attempt: AttemptReport) -> str:
    """One attempt, for ``--verbose``."""
    outcome = attempt.failure or "answered"
    status = f", HTTP {attempt.status}" if attempt.status else ""
    over = f" over {attempt.http_version}" if attempt.http_version else ""
    pinged = ", PING kept up" if attempt.pinged else ""
    detail = f" ({harmless(attempt.detail)})" if attempt.detail else ""
    return (
        f"attempt {attempt.number}: {outcome}{detail} in {attempt.phase} after {attempt.elapsed:.1f} s, "
        f"{attempt.silent:.1f} s silent{status}{over}{pinged}; billed: {attempt.billed}"
    )


def remarks(*, empty: bool, finish_reason: str | None, report: Report) -> list[str]:
    """What a reader of the answer should know about it, mostly nothing."""
    found = []
    if report.attempts and report.attempts[-1].failure == "other_content":
        found.append("the server did not stream: the answer came in one piece")
    if ending := _ENDINGS.get(finish_reason or ""):
        found.append(ending)
    elif empty:
        found.append(f"the answer is empty (finish reason: {harmless(finish_reason or 'none')})")
    return found
