"""Writing to the journal without holding anything up: on a thread, for a limited time, errors dropped."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from unbroken.core.report import AttemptReport
from unbroken.journal import tally
from unbroken.journal.entry import AnsweredCount, JournalEntry, answered, losses
from unbroken.journal.place import journal_path

PATIENCE = 3.0
"""Seconds for which the end of a command, or of a relay, waits for a journal on a disk that does not answer."""

WAITING = 1000
"""How many entries, and how many counts, wait to be written; further ones are dropped."""

EVERY = 10.0
"""Seconds after which counts are written although nothing was lost."""


def keep_turn(attempts: Sequence[AttemptReport], started: float, face: str) -> None:
    """Write what came of the attempts of a turn that has ended. Takes :data:`PATIENCE` at most.

    Where none was lost, SQLite is not loaded.

    Args:
        attempts: of the turn.
        started: when it began; seconds since the epoch.
        face: who asked: ``run``, ``exec`` or ``relay``.
    """
    entries, counts, path = losses(attempts, started, face), answered(attempts, started), journal_path()
    if not path or not (entries or counts):
        return
    work = partial(_write, path, entries, counts) if entries else partial(_note, path, counts)
    thread = threading.Thread(target=work, name="unbroken-journal", daemon=True)
    with contextlib.suppress(RuntimeError):  # the system has no thread left
        thread.start()
        thread.join(PATIENCE)


class JournalWriter:
    """A writer of what a relay's turns meet, on a thread that is started for the first of them. Never blocks.

    Args:
        face: who asked: ``exec`` or ``relay``.
        path: the journal; ``None`` for the user's own.
    """

    def __init__(self, face: str, path: Path | None = None) -> None:
        self._face = face
        self._path = path or journal_path()
        self._changed = threading.Condition()
        self._entries: list[JournalEntry] = []
        self._answered: Counter[AnsweredCount] = Counter()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, attempts: Sequence[AttemptReport], started: float) -> None:
        """Note what came of a turn's attempts. The arguments are as for :func:`keep_turn`."""
        entries, counts = losses(attempts, started, self._face), answered(attempts, started)
        if not self._path or not (entries or counts):
            return
        with self._changed:
            if entries or not self._answered:
                self._changed.notify()
            self._entries.extend(entries[: WAITING - len(self._entries)])
            if len(self._answered) < WAITING:
                self._answered.update(counts)
        if self._thread is None:
            self._start(self._path)

    def close(self) -> None:
        """Write what waits, for :data:`PATIENCE` at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join(PATIENCE)

    def _start(self, path: Path) -> None:
        thread = threading.Thread(target=self._run, args=(path,), name="unbroken-journal", daemon=True)
        with contextlib.suppress(RuntimeError):  # the system has no thread left
            thread.start()
            self._thread = thread

    def _run(self, path: Path) -> None:
        while taken := self._take():
            _write(path, *taken)

    def _take(self) -> tuple[list[JournalEntry], list[AnsweredCount]] | None:
        """Wait for what is to be written, ``None`` at the end. Counts wait a while for an entry to come with them."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._answered or self._closed)
            self._changed.wait_for(lambda: self._entries or self._closed, EVERY)
            taken = self._entries, _summed(self._answered)
            self._entries, self._answered = [], Counter()
        return taken if any(taken) else None


def _summed(counts: Counter[AnsweredCount]) -> list[AnsweredCount]:
    return [msgspec.structs.replace(one, attempts=number) for one, number in counts.items()]


def _note(path: Path, counts: Sequence[AnsweredCount]) -> None:
    with contextlib.suppress(OSError, ValueError):
        tally.note(path, counts)


def _write(path: Path, entries: Sequence[JournalEntry], counts: Sequence[AnsweredCount]) -> None:
    """Write to the journal; drop any error: no turn, and no command, may fail for it."""
    try:
        import sqlite3

        from unbroken.journal.database import write
    except ImportError:  # a Python that was built without SQLite
        return
    with contextlib.suppress(OSError, ValueError, sqlite3.Error):
        write(path, entries, counts, time.time())
