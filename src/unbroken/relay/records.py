"""What is kept of a turn, for the log, the metrics and the page: figures and codes, never content or keys."""

from __future__ import annotations

import enum

import msgspec

from unbroken.core.failures import Failure, Phase
from unbroken.core.report import AttemptReport, Report, is_silent_cut
from unbroken.errors import FirstOutputTimeout, MalformedStream, StreamCut, TurnError, Unreachable


class Outcome(enum.StrEnum):
    """How a request ended, as far as its client is concerned."""

    ANSWERED = "answered"
    """One whole answer."""
    REFUSED = "refused"
    """The upstream's error status was handed on."""
    FAILED = "failed"
    """The provider's error inside the stream was handed on."""
    UNEXPECTED = "unexpected"
    """Something else than was asked for was handed on: a page of HTML, say."""
    CUT = "cut"
    """The stream was lost after output."""
    LOST = "lost"
    """The stream was lost before output, and the budget is used up."""
    TIMED_OUT = "timed_out"
    """The model produced nothing in time."""
    UNREACHABLE = "unreachable"
    """No request got through."""
    MALFORMED = "malformed"
    """The stream broke its own format."""
    LEFT = "left"
    """The client went away."""
    STOPPED = "stopped"
    """The relay was stopped."""
    PASSED = "passed"
    """No generation call: it was passed through."""
    REJECTED = "rejected"
    """The relay itself said no: token, host, limits, no such route."""


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One turn, running or ended.

    Attributes:
        id: its name in headers and logs.
        started: seconds since the epoch.
        elapsed: seconds from its start to now or to its end.
        upstream: name of the upstream.
        dialect: name of the dialect.
        streaming: whether events were asked for.
        outcome: how it ended, ``None`` while it runs.
        first_output: seconds until the client got the first of the answer, ``None`` where it got none.
        bytes: bytes of the body that were sent to the client.
        heartbeats: how many heartbeats were sent to the client.
        attempts: every attempt; while the turn runs the last one is running.
    """

    id: str
    started: float
    elapsed: float
    upstream: str
    dialect: str
    streaming: bool
    outcome: Outcome | None = None
    first_output: float | None = None
    bytes: int = 0
    heartbeats: int = 0
    attempts: tuple[AttemptReport, ...] = ()

    @property
    def saved(self) -> bool:
        """Whether it was answered although an attempt had been lost."""
        return self.outcome is Outcome.ANSWERED and len(self.attempts) > 1


class Cut(msgspec.Struct, frozen=True):
    """The silence in which an attempt was cut before its first output.

    Attributes:
        at: when, in seconds since the epoch.
        silent: seconds without a byte on the wire.
        pinged: whether PING was kept up.
    """

    at: float
    silent: float
    pinged: bool


_WAITING = (Phase.HEADERS, Phase.PRELUDE)
_BY_FAILURE = {
    Failure.BUSY.code: Outcome.REFUSED,
    Failure.GATEWAY_GAVE_UP.code: Outcome.REFUSED,
    Failure.REFUSED.code: Outcome.REFUSED,
    Failure.OTHER_CONTENT.code: Outcome.UNEXPECTED,
    Failure.TRANSIENT_ERROR.code: Outcome.FAILED,
    Failure.PERMANENT_ERROR.code: Outcome.FAILED,
}


def outcome_of(report: Report, error: TurnError | None) -> Outcome:
    """How a turn ended that its client has not left."""
    match error:
        case None:
            last = report.attempts[-1].failure if report.attempts else None
            return _BY_FAILURE.get(last or "", Outcome.ANSWERED)
        case Unreachable():
            return Outcome.UNREACHABLE
        case FirstOutputTimeout():
            return Outcome.TIMED_OUT
        case MalformedStream():
            return Outcome.MALFORMED
        case StreamCut() if error.phase in _WAITING:
            return Outcome.LOST
    return Outcome.CUT


def cuts_of(turn: TurnRecord) -> list[Cut]:
    """Every cut of a turn in silence, before its first output."""
    return [
        Cut(turn.started + attempt.after + attempt.elapsed, attempt.silent, attempt.pinged)
        for attempt in turn.attempts
        if is_silent_cut(attempt)
    ]
