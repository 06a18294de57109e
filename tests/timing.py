"""Latencies, compared with what a wake-up took in this process in the very same moment.

A contract such as "the server knows within 100 ms" holds on a machine that has nothing else to do. On a busy one every
step from one thread to the next may take longer, and nobody can say by how much; so a control takes such steps all the
while, and what its slowest one took is allowed on top, for each of the steps that a contract consists of.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

WITHIN = 0.1
"""Seconds: what most contracts say."""

STEPS = 5
"""Wake-ups of threads and processes that a contract may consist of, at most."""

PAUSE = 0.002
"""Seconds between two steps of the control."""


class Step(NamedTuple):
    """One step of the control: when it was due, and when it was over."""

    due: float
    over: float


class Control:
    """Wakes a thread by a socket, and is woken by it, again and again."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._due = time.monotonic()

    def __call__(self, since: float, until: float | None = None, *, within: float = WITHIN) -> None:
        """Assert that something came promptly.

        Args:
            since: when it was asked for, by ``time.monotonic``.
            until: when it had come; now, if nothing else is said.
            within: seconds that it may take on an idle machine.
        """
        until = time.monotonic() if until is None else until
        slowest = self.slowest(since, until)
        took = until - since
        assert took < within + STEPS * slowest, (
            f"it took {1000 * took:.1f} ms; {1000 * within:.0f} ms are allowed, and {STEPS} times what a step of the "
            f"control took meanwhile: {1000 * slowest:.1f} ms at most"
        )

    def slowest(self, since: float, until: float) -> float:
        """How long the control's slowest step took of those that were under way between two times."""
        steps = [*self._steps, Step(self._due, time.monotonic())]
        return max((step.over - step.due for step in steps if step.due < until and step.over > since), default=0.0)

    def step(self, sock: socket.socket) -> None:
        """Sleep for a moment, wake the other thread, and be woken by it."""
        self._due = time.monotonic() + PAUSE
        time.sleep(PAUSE)
        sock.sendall(b".")
        sock.recv(1)
        self._steps.append(Step(self._due, time.monotonic()))


@contextmanager
def control() -> Iterator[Control]:
    """A control that runs on two threads of its own."""
    running, over = Control(), threading.Event()
    here, there = socket.socketpair()

    def wake() -> None:
        while not over.is_set():
            running.step(here)
        here.shutdown(socket.SHUT_WR)

    def echo() -> None:
        while data := there.recv(1):
            there.sendall(data)

    with here, there:
        threads = [threading.Thread(target=work, name="control", daemon=True) for work in (wake, echo)]
        for thread in threads:
            thread.start()
        yield running
        over.set()
        for thread in threads:
            thread.join()
