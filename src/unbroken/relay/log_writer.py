"""Writing lines on a thread of its own: an event loop must not wait for a log that is not read."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading

CAPACITY = 10_000
"""How many lines wait to be written; further ones are dropped."""

LAST_LINES = 1.0
"""Seconds for which :meth:`LineWriter.close` waits for lines to be written."""


class LineWriter:
    """Writes lines to a file descriptor. A line that does not fit the queue is dropped and counted.

    Args:
        descriptor: where lines are written; not closed.
        capacity: how many lines may wait.

    Attributes:
        dropped: how many lines were dropped.
    """

    def __init__(self, descriptor: int, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self._told = 0
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="unbroken-log", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Write a line, given without its end. Never blocks."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = LAST_LINES) -> None:
        """Write what waits, for so many seconds at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=seconds)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if dropped := self.dropped - self._told:
                self._told += dropped
                self._write(f"{dropped} lines were dropped: the log was not read")
            self._write(line)

    def _write(self, line: str) -> None:
        left = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        with contextlib.suppress(OSError):  # a full disk or a closed pipe must not end the relay
            while left:
                left = left[os.write(self._descriptor, left) :]


class LineHandler(logging.Handler):
    """A handler of :mod:`logging` that writes with a :class:`LineWriter`.

    Args:
        write: takes a line.
    """

    def __init__(self, write: LineWriter) -> None:
        super().__init__()
        self._lines = write

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        self._lines(self.format(record))
