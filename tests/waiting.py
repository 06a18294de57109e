"""Waiting for what nobody announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a test that waits has failed."""


def poll(condition: Callable[[], T], seconds: float = PATIENCE, *, every: float = 0.001) -> T:
    """Wait until a condition is true; return what it then is."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(every)
    return result


def wait_until_asleep(pid: int) -> None:
    """Wait until the main thread of a program sleeps, in the kernel's words, whenever it is looked at.

    A signal that comes just before a system call does not end that call. Nobody presses Ctrl-C at that very moment; a
    test would.
    """
    stat, seen = Path(f"/proc/{pid}/stat"), ""

    def look() -> bool:
        nonlocal seen
        seen = (seen + stat.read_text().rpartition(")")[2].split()[0])[-3:]
        return seen == "SSS"

    poll(look, every=0.005)
