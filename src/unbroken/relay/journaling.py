"""Noting the attempts of the relay's turns in the user's journal, as an observer of the recorder."""

from __future__ import annotations

import anyio.to_thread

from unbroken.core.actions import PathNotice, RetryEvent
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
        """Write what waits, for a second at most."""
        await anyio.to_thread.run_sync(self._writer.close)
