"""The limit of the time without output, once output has begun: when it runs, and when it passes."""

from __future__ import annotations

from unbroken.core.attempt import Attempt, Mode
from unbroken.core.failures import Phase


class OutputLimit:
    """The limit of one turn.

    Args:
        seconds: the limit, ``None`` for none.
        now: the current time, on the driver's clock.
    """

    def __init__(self, seconds: float | None, now: float) -> None:
        self._seconds = seconds
        self._outputs = 0
        self._output_at = now

    def begin(self, attempt: Attempt, now: float) -> None:
        """Begin a response. What an attempt before it said, and when, does not count any more."""
        self._outputs, self._output_at = attempt.outputs, now

    def until(self, attempt: Attempt) -> float | None:
        """Return when the limit passes; ``None`` for never, or while a tool of the server runs."""
        if self._seconds is None or not _is_answering(attempt) or attempt.runs_tool:
            return None
        return self._output_at + self._seconds

    def note(self, attempt: Attempt, now: float) -> bool:
        """Note whether there was output; return whether the limit applies to this attempt now."""
        if self._outputs != attempt.outputs:
            self._outputs, self._output_at = attempt.outputs, now
        return self._seconds is not None and _is_answering(attempt)

    def rest(self, attempt: Attempt, seconds: float) -> bool:
        """Leave out seconds in which the caller did not read; return whether that changes when the limit passes."""
        self._output_at += seconds
        return self.until(attempt) is not None


def _is_answering(attempt: Attempt) -> bool:
    return attempt.phase is Phase.OUTPUT and attempt.mode is Mode.STREAM
