"""The clock of wire and drivers: monotonic seconds, without the time in which the process did not run.

A process that was stopped (SIGSTOP, a debugger), or a machine that slept, has not waited: that time counts for no
limit. The clock learns of it from waits that end far later than they were to. Where the system's monotonic clock goes
on while the machine sleeps, that covers both; where it stands still (Linux, macOS), the sleep is no part of it anyway,
and is told by comparing it with the clock that goes on.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]

LATE = 5.0
"""Seconds beyond the end of a wait from which on the process did not run. A busy machine is late too, but less."""

_CLOCKS = {
    "CLOCK_BOOTTIME": "CLOCK_MONOTONIC",  # Linux
    "CLOCK_MONOTONIC_RAW": "CLOCK_UPTIME_RAW",  # macOS
}
"""A clock that goes on while the machine sleeps, and one that does not."""


class RunningClock:
    """A clock that stands still while the process does not run. It may be used by several threads."""

    def __init__(self) -> None:
        self._stopped = 0.0
        self._lock = threading.Lock()
        self._pair = _clocks()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return time.monotonic() - self._stopped

    def woke(self, due: float) -> None:
        """Record that a wait has ended, before anything is made of the time.

        Args:
            due: when it was to end at the latest, on this clock.
        """
        if self() - due > LATE:
            with self._lock:  # another thread may have recorded the same
                late = self() - due
                self._stopped += late if late > LATE else 0.0

    @property
    def away(self) -> float:
        """Seconds in which the process did not run, so far; each step of it is a waking."""
        if self._pair is None:
            return self._stopped
        running, standing = self._pair
        return self._stopped + running() - standing()


def _clocks() -> tuple[Clock, Clock] | None:
    read = getattr(time, "clock_gettime", None)  # which Windows has not
    for names in _CLOCKS.items():
        running, standing = (getattr(time, name, None) for name in names)
        if read and running is not None and standing is not None:
            return functools.partial(read, running), functools.partial(read, standing)
    return None


clock = RunningClock()
"""The clock of this process."""


def sleep(seconds: float) -> None:
    """Block the thread."""
    due = clock() + seconds
    time.sleep(seconds)
    clock.woke(due)


async def async_sleep(seconds: float) -> None:
    """Wait, in asyncio or trio."""
    import anyio  # blocking code needs none

    due = clock() + seconds
    await anyio.sleep(seconds)
    clock.woke(due)
