"""The report of a turn: one record for each attempt, and their totals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from unbroken.core import advice as advising
from unbroken.core.advice import CUTS, ENDS_OF_STREAM, LEAST_SILENCE, SilentCut
from unbroken.core.events import Restarted
from unbroken.core.failures import GATEWAY_TIMEOUTS, Failure, Phase
from unbroken.core.route import RouteRecord


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one attempt.

    Attributes:
        number: 1 for the first.
        phase: the last phase that it reached, by what came of it.
        failure: the stable code of the failure that ended it, ``None`` for the attempt that answered. A loss after the
            attempt settled is recorded here too, although no output was lost.
        detail: one line for a person; never a key, a credential or content.
        status: HTTP status, ``None`` if no headers came.
        after: seconds from the turn's start to its start.
        headers_after: seconds from its start to the response's headers, ``None`` if none came.
        output_after: seconds from its start to the model's first output, ``None`` if there was none.
        elapsed: seconds from its start to its end.
        silent: seconds without a byte of the response when it ended, counted from the request where none came; PING and
            what ended it are no bytes of it. Where a gateway gave up: the seconds until its status came.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"`` or ``""`` if unknown.
        route: where it was sent, and what PING did there.
        lowered_ping: seconds between PINGs on this path from its cut on, ``None`` if the cut taught nothing.
        finish_reason: the provider's finish reason of the first choice, as it came; ``None`` if the stream named none.
        path: the path it took: a proxy's URL without credentials, ``"direct"``, or ``""`` if that is not known.
        path_source: where that path was set, such as ``"HTTPS_PROXY"``, or ``""``.
        billed: ``"no"`` if it provably was not processed, or takes up what another attempt asked for, ``"unknown"`` if
            its tokens may have been billed,
            ``"yes"`` if there was output.
        held: whether there was output and nothing of it was handed on (:attr:`unbroken.Policy.hold`).
        resumes: behind which event it takes up the response of the attempts before it; ``None`` if it asks for one
            of its own.
        runs_on: whether its response may go on at the server although nobody reads it any more, and be billed.
    """

    number: int
    phase: Phase
    failure: str | None = None
    detail: str = ""
    status: int | None = None
    after: float = 0.0
    headers_after: float | None = None
    output_after: float | None = None
    elapsed: float = 0.0
    silent: float = 0.0
    http_version: str = ""
    route: RouteRecord = RouteRecord()
    lowered_ping: float | None = None
    billed: Literal["no", "unknown", "yes"] = "unknown"
    finish_reason: str | None = None
    held: bool = False
    path: str = ""
    path_source: str = ""
    resumes: str | None = None
    runs_on: bool = False


class SeamReport(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a seam: where an attempt continues the text of those before it.

    Attributes:
        attempt: number of the attempt that continues.
        character: how many characters of the text came before the seam.
        output_before: how much output came before it; the request's limit of output was lowered by it.
        counted: ``"tokens"`` if the server told how many, ``"pieces"`` if the pieces of the stream were counted.
    """

    attempt: int
    character: int
    output_before: int
    counted: Literal["tokens", "pieces"]


class ResumeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a place where a stream was cut and taken up: not a byte of it is missing or doubled there.

    Attributes:
        attempt: number of the attempt that took it up.
        after: the last event before, as its server numbers or names it.
    """

    attempt: int
    after: str


class BackgroundReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of having a response go on at the server, although the caller did not ask for it.

    Attributes:
        added: whether it was asked for.
        why_not: why it was not, ``""`` if it was.
        cancelled: whether the server acknowledged that a response ends which nobody reads any more; ``None`` if there
            was none.
        deleted: whether it acknowledged that a response is deleted which the caller did not want kept; ``None`` if
            there was none.
    """

    added: bool
    why_not: str = ""
    cancelled: bool | None = None
    deleted: bool | None = None

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """What the server was asked and did not acknowledge: ``cancel``, ``delete``."""
        answers = {"cancel": self.cancelled, "delete": self.deleted}
        return tuple(name for name, acknowledged in answers.items() if acknowledged is False)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a running turn, for a user interface to show while it waits.

    Attributes:
        phase: the phase of the running attempt.
        attempt: its number, 1 for the first.
        sent: whether any byte of its request may have left.
        silent: seconds since the last byte of its response, or of its request before that.
        round_trip: seconds that the last answered PING took, ``None`` before the first.
        unanswered: seconds for which a PING has been unanswered, ``None`` if none is.
        lowered_ping: seconds between PINGs, if an earlier cut has lowered them; ``None`` if not.
        suspicion: what is waited for of a path that does not answer, as a line for a person; ``""`` if it answers.
    """

    phase: Phase
    attempt: int
    sent: bool = False
    silent: float = 0.0
    round_trip: float | None = None
    unanswered: float | None = None
    lowered_ping: float | None = None
    suspicion: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a whole turn.

    Attributes:
        attempts: every attempt in order; the last one answered, if any did.
        retries: how many attempts were sent again because they were provably not processed.
        replays: how many attempts were sent again after they were lost.
        dialect: name of the dialect, ``""`` for a call of no dialect.
        seams: where the text was continued after a cut, in order; such attempts count in ``replays`` too.
        restarts: where the answer was cut and began again, in order; such attempts count in ``replays`` too.
        resumes: where the stream was taken up after a cut, in order; such attempts are no replays.
        background: what came of :attr:`unbroken.Policy.background`; ``None`` where that is off, or the caller asked.
    """

    attempts: tuple[AttemptReport, ...] = ()
    retries: int = 0
    replays: int = 0
    dialect: str = ""
    seams: tuple[SeamReport, ...] = ()
    restarts: tuple[Restarted, ...] = ()
    resumes: tuple[ResumeReport, ...] = ()
    background: BackgroundReport | None = None

    @property
    def lost(self) -> int:
        """How many attempts were lost before another one was made."""
        return self.retries + self.replays

    @property
    def losses(self) -> tuple[str, ...]:
        """The failure and phase of each lost attempt, such as ``"reset@headers"``.

        Failures after an attempt settled, and errors that were handed on, are not losses.
        """
        lost = (attempt for attempt in self.attempts if attempt.phase not in (Phase.SETTLED, Phase.COMPLETE))
        return tuple(f"{attempt.failure}@{attempt.phase}" for attempt in lost if attempt.failure)

    @property
    def unproven_end(self) -> bool:
        """Whether the stream was ended by our own wait: the provider said how the answer ended, but not that it had."""
        return any(attempt.failure == "unproven_end" for attempt in self.attempts[-1:])

    @property
    def possibly_billed(self) -> int:
        """How many lost attempts may have been billed; those whose output was held have been."""
        return sum(
            first.billed == "unknown" or first.held
            for first, *resumed in _responses(self.attempts)
            if not resumed or resumed[-1].phase not in (Phase.SETTLED, Phase.COMPLETE)
        )

    @property
    def silent_cuts(self) -> list[SilentCut]:
        """The attempts that were cut before their first output, after a silence; in order."""
        return silent_cuts(self.attempts)

    @property
    def advice(self) -> str:
        """What to do about a pattern in the cuts, see :func:`unbroken.core.advice.advice`. ``""`` without one."""
        return advising.advice(self.silent_cuts)


def _responses(attempts: Iterable[AttemptReport]) -> list[list[AttemptReport]]:
    """Return the attempts by the response that they are of: one that asks for it, and those that take it up."""
    responses: list[list[AttemptReport]] = []
    for attempt in attempts:
        if attempt.resumes is None:
            responses.append([attempt])
        else:
            responses[-1].append(attempt)
    return responses


def silent_cuts(attempts: Iterable[AttemptReport], since: float = 0.0) -> list[SilentCut]:
    """Return the attempts of a turn that were cut before their first output, after a silence.

    Args:
        attempts: of one turn, in order.
        since: start of the turn, on the clock that dates the cuts.
    """
    return [
        SilentCut(
            at=since + attempt.after + attempt.elapsed,
            silent=attempt.silent,
            pinged=attempt.route.kept_busy,
            http_version=attempt.http_version,
            gateway_status=(attempt.status or 0) if attempt.failure == Failure.GATEWAY_GAVE_UP.code else 0,
            ends_stream=_ends_stream(attempt),
            lowered_ping=attempt.lowered_ping,
            route=attempt.route,
        )
        for attempt in attempts
        if _is_silent_cut(attempt)
    ]


def lowered_ping(attempt: AttemptReport) -> float | None:
    """Return the interval of PING that the end of an attempt teaches, ``None`` if it teaches none.

    See :meth:`unbroken.core.route.RouteRecord.lowered_ping`. A cut after output teaches the turns to come.
    """
    was_cut = attempt.failure in CUTS and attempt.phase in (Phase.HEADERS, Phase.PRELUDE, Phase.OUTPUT)
    return attempt.route.lowered_ping(attempt.silent) if was_cut and not _ends_stream(attempt) else None


def lesson(attempt: AttemptReport) -> str:
    """Return what is done about the cut of an attempt from now on, ``""`` for nothing."""
    return "" if attempt.lowered_ping is None else advising.lesson(attempt.silent, attempt.lowered_ping)


def _ends_stream(attempt: AttemptReport) -> bool:
    return attempt.http_version == "HTTP/2" and attempt.failure in ENDS_OF_STREAM


def _is_silent_cut(attempt: AttemptReport) -> bool:
    if attempt.silent < LEAST_SILENCE:
        return False
    if attempt.failure == Failure.GATEWAY_GAVE_UP.code:
        return attempt.status in GATEWAY_TIMEOUTS
    return attempt.failure in CUTS and attempt.phase in (Phase.HEADERS, Phase.PRELUDE)
