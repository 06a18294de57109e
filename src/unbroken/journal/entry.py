"""Entries of the journal: what is kept of a lost attempt, and counts of the attempts that answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from unbroken.core.advice import SilentCut
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.report import AttemptReport, silent_cuts

DAY = 86400

MAX_TEXT = 300
"""Characters that are kept of a name. A host's has 253 at most (RFC 1035, section 2.3.4)."""

_NOT_LOST = frozenset(
    failure.code
    for failure in Failure
    if failure.row in (Row.REFUSED, Row.PERMANENT_ERROR, Row.OTHER_CONTENT, Row.CALLER_TIMEOUT, Row.CANCELLED)
)
"""Failures that lose no attempt: the server's own answer was handed on, or the caller ended it."""


class JournalEntry(msgspec.Struct, frozen=True):
    """One lost attempt.

    Attributes:
        at: when it was lost; seconds since the epoch.
        face: who asked: ``run``, ``exec`` or ``relay``.
        attempt: the attempt's report, without what could have content in it.
    """

    at: float
    face: str
    attempt: AttemptReport

    @property
    def silent_cut(self) -> SilentCut | None:
        """The attempt as evidence of an idle timer, ``None`` if it is none."""
        return next(iter(silent_cuts([self.attempt], self.at - self.attempt.elapsed)), None)


class AnsweredCount(msgspec.Struct, frozen=True):
    """How many attempts by one path were answered on one day.

    Attributes:
        day: days since the epoch, in UTC.
        host: the upstream's host.
        proxy: URL of the proxy without credentials, ``""`` for none.
        http_version: ``"HTTP/1.1"`` or ``"HTTP/2"``.
        attempts: how many.
    """

    day: int
    host: str
    proxy: str
    http_version: str
    attempts: int = 1


class JournalContents(NamedTuple):
    """What is in a journal.

    Attributes:
        entries: the lost attempts, oldest first.
        answered: the counts of answered attempts, oldest first.
        problem: why it cannot be read, or ``""``.
    """

    entries: Sequence[JournalEntry] = ()
    answered: Sequence[AnsweredCount] = ()
    problem: str = ""


def losses(attempts: Iterable[AttemptReport], started: float, face: str) -> list[JournalEntry]:
    """Return an entry for each attempt of a turn that was lost.

    Args:
        attempts: of one turn.
        started: when the turn began; seconds since the epoch.
        face: who asked.
    """
    return [
        JournalEntry(started + attempt.after + attempt.elapsed, face, _without_content(attempt))
        for attempt in attempts
        if attempt.failure and attempt.failure not in _NOT_LOST and attempt.phase not in (Phase.SETTLED, Phase.COMPLETE)
    ]


def answered(attempts: Iterable[AttemptReport], started: float) -> list[AnsweredCount]:
    """Return a count of one for each attempt of a turn that answered. The arguments are as for :func:`losses`."""
    return [
        AnsweredCount(
            int(started + attempt.after + attempt.elapsed) // DAY,
            _clipped(attempt.route.host),
            _clipped(attempt.route.proxy),
            attempt.http_version,
        )
        for attempt in attempts
        if attempt.phase in (Phase.SETTLED, Phase.COMPLETE) and (attempt.status or 0) < 400
    ]


def _without_content(attempt: AttemptReport) -> AttemptReport:
    """Return what is kept of a report: no text that a server or a caller has written."""
    route = attempt.route
    return AttemptReport(
        number=0,
        phase=attempt.phase,
        failure=attempt.failure,
        status=attempt.status,
        elapsed=attempt.elapsed,
        silent=attempt.silent,
        http_version=attempt.http_version,
        lowered_ping=attempt.lowered_ping,
        path_source=_clipped(attempt.path_source),
        route=msgspec.structs.replace(
            route, host=_clipped(route.host), proxy=_clipped(route.proxy), http_version=attempt.http_version
        ),
    )


def _clipped(text: str) -> str:
    return text[:MAX_TEXT].encode(errors="replace").decode()
