"""The attempts of the relay's turns in the user's journal: noting them (an observer of the recorder), and findings."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio.to_thread

from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.journal.entry import JournalContents, answered, losses
from unbroken.journal.findings import PastTurns, PathFindings
from unbroken.journal.reading import read_own
from unbroken.journal.writing import JournalWriter
from unbroken.relay.recorder import RequestRecord


class Journaling:
    """An observer that notes what came of the attempts of each turn. Never blocks.

    Args:
        face: who asked: ``exec`` or ``relay``.
    """

    def __init__(self, face: str) -> None:
        self._writer = JournalWriter(face)

    def started(self) -> None:
        """Do nothing: attempts are noted when their turn ends."""

    def retried(self, turn_id: str, event: RetryEvent) -> None:
        """Do nothing: attempts are noted when their turn ends."""

    def noticed(self, turn_id: str, notice: PathNotice) -> None:
        """Do nothing: a path that does not answer has lost no attempt."""

    def ended(self, record: RequestRecord) -> None:
        """Note the attempts of a turn that has ended."""
        if record.is_turn:
            self._writer.add(record.attempts, record.started)

    async def aclose(self) -> None:
        """Write what waits, for a few seconds at most."""
        await anyio.to_thread.run_sync(self._writer.close)


async def find(recent: Sequence[RequestRecord], face: str) -> PathFindings:
    """Return what past turns tell of the relay's paths, on a thread: the journal may be long, or locked.

    Args:
        recent: the last turns; some of them may not be in the journal yet.
        face: whose attempts of the journal count; ``""`` for none: then only the last turns do.
    """
    return await anyio.to_thread.run_sync(_find, recent, face)


def _find(recent: Sequence[RequestRecord], face: str) -> PathFindings:
    noted = read_own(face) if face else JournalContents()
    last = [entry for turn in recent for entry in losses(turn.attempts, turn.started, face)]
    known = frozenset(noted.entries)
    entries = [*noted.entries, *(entry for entry in last if entry not in known)]
    counts = noted.answered or [count for turn in recent for count in answered(turn.attempts, turn.started)]
    return PastTurns(entries, counts, time.time()).summary
