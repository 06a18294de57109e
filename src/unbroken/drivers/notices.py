"""Notices of retries and replays: one line for a person, a log record, and a call of the observer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.failures import OWN_LIMITS, Phase
from unbroken.core.report import Report

RetryCallback = Callable[[RetryEvent], None]
"""Called at every retry and replay, before the wait. It must not block: the turn waits for it."""

PathCallback = Callable[[PathNotice], None]
"""Called when a path does not answer, and when another thing is waited for because of it. It must not block."""

logger = logging.getLogger("unbroken")


def describe(event: RetryEvent) -> str:
    """Return a line, such as ``cut after 61.2 s, before any output (connection reset) · replaying, attempt 2 of 4``.

    Of an attempt whose output was held it begins with ``cut after 12.0 s of output, all held``.
    """
    lost = event.lost
    refused = lost.status is not None and lost.status >= 400
    ours = event.failure in OWN_LIMITS
    lead = "refused" if refused else "failed" if event.action == "retry" else "given up" if ours else "cut"
    after, when = lost.elapsed, ", after output" if lost.phase is Phase.OUTPUT else ", before any output"
    if refused or event.action == "retry":
        when = ""
    if lost.held:
        after, when = lost.elapsed - (lost.output_after or 0.0), " of output, all held"
    why = lost.detail if refused else f"{event.failure.phrase}: {lost.detail}" if ours else event.failure.phrase
    next_step = _NEXT_STEPS[event.action](event)
    soon = f" in {event.delay:.1f} s" if event.delay else ""
    attempt = f"attempt {event.attempt + 1} of {event.of}"
    path = f" · going by {event.path} from now on" if event.path else ""
    runs_on = " · the lost one may run on at the server, billed" if lost.runs_on else ""
    return f"{lead} after {after:.1f} s{when} ({why}) · {next_step}{soon}, {attempt}{path}{runs_on}"


def continued(characters: Sequence[int]) -> str:
    """Return a phrase such as ``continued at character 1,240``, for one seam or more."""
    return f"continued at {_places('character', [f'{character:,}' for character in characters])}"


def restarted(characters: Sequence[int]) -> str:
    """Return a phrase such as ``restarted after character 1,240``, for one restart or more."""
    return f"restarted after {_places('character', [f'{character:,}' for character in characters])}"


def resumed(events: Sequence[str]) -> str:
    """Return a phrase such as ``resumed after event 41`` or ``resumed after byte 1513``, for one place or more."""
    counts_bytes = events[0].startswith("byte ")  # at a relay that keeps the response
    return (
        f"resumed after {_places('byte' if counts_bytes else 'event', [one.removeprefix('byte ') for one in events])}"
    )


def background(report: Report) -> str:
    """Return what a person should know of a response that was to go on at the server, ``""`` for nothing."""
    parts = []
    if report.background and report.background.why_not:
        parts.append(f"not resumable: {report.background.why_not}")
    unacknowledged = report.background.unacknowledged if report.background else ()
    if "cancel" in unacknowledged or any(attempt.runs_on for attempt in report.attempts):
        parts.append("a response that nobody reads may run on at the server, billed")
    if "delete" in unacknowledged:
        parts.append("its response was not deleted at the server")
    return "; ".join(parts)


def _places(what: str, places: Sequence[str]) -> str:
    if len(places) == 1:
        return f"{what} {places[0]}"
    return f"{what}s {' and '.join([', '.join(places[:-1]), places[-1]])}"


_NEXT_STEPS: Mapping[str, Callable[[RetryEvent], str]] = {
    "retry": lambda _: "retrying",
    "replay": lambda _: "replaying",
    "restart": lambda _: "restarting",
    "continue": lambda event: f"continuing at character {event.character:,}",
    "resume": lambda event: resumed([event.after or ""]).replace("resumed", "resuming"),
}


def remark(text: str) -> None:
    """Log what was done beside the turn's retries."""
    logger.warning(text)


def notify(event: RetryEvent | PathNotice, on_retry: RetryCallback | None, on_path: PathCallback | None = None) -> None:
    """Log the event, and notify its observer if there is one."""
    if isinstance(event, PathNotice):
        logger.warning(event.text, extra={"unbroken": event})
        if on_path:
            on_path(event)
        return
    logger.warning(describe(event), extra={"unbroken": event})
    if event.advice:
        logger.warning(event.advice)
    if on_retry:
        on_retry(event)
