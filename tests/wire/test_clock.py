"""Time in which the process did not run: virtual here, and real in ``real/test_stopped``."""

from __future__ import annotations

import time

import anyio
import pytest

from unbroken.wire import clock as clocks
from unbroken.wire.clock import LATE, RunningClock


class Now:
    """The system's clocks."""

    def __init__(self) -> None:
        self.time = 100.0
        self.asleep = 0.0

    def monotonic(self) -> float:
        return self.time

    def going_on(self) -> float:
        return self.time + self.asleep


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    made = Now()
    monkeypatch.setattr(clocks, "time", made)
    monkeypatch.setattr(clocks, "_clocks", lambda: (made.going_on, made.monotonic))
    return made


def test_a_wait_that_ends_in_time_or_a_little_late_is_time(now: Now) -> None:
    clock = RunningClock()
    for late in (0.0, LATE):
        due = clock() + 10
        now.time += 10 + late
        clock.woke(due)
        assert clock() == now.time
    assert clock.away == 0


def test_a_wait_that_ends_much_later_has_stopped_the_clock(now: Now) -> None:
    clock = RunningClock()
    now.time += 10 + 3600
    clock.woke(110)
    assert (clock(), clock.away) == (110, 3600)
    now.time += 5
    assert clock() == 115


@pytest.mark.parametrize("order", [(110, 150), (150, 110)], ids=["the shorter first", "the longer first"])
def test_the_waits_of_several_threads_have_slept_once(now: Now, order: tuple[float, float]) -> None:
    """What is known for certain is that the process ran until the first of them was due."""
    clock = RunningClock()
    now.time += 3600
    for due in order:
        clock.woke(due)
    assert (clock(), clock.away) == (110, 3590)


def test_the_sleep_of_a_machine_is_seen_though_its_clock_stood_still(now: Now) -> None:
    clock = RunningClock()
    now.time += 10
    now.asleep += 3600
    clock.woke(110)
    assert (clock(), clock.away) == (110, 3600)


def test_a_pause_between_attempts_is_a_wait(now: Now, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RunningClock()
    monkeypatch.setattr(clocks, "clock", clock)

    def sleep(seconds: float) -> None:
        now.time += seconds + 3600

    async def async_sleep(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr(now, "sleep", sleep, raising=False)
    clocks.sleep(2)
    assert (clock(), clock.away) == (102, 3600)
    monkeypatch.setattr(anyio, "sleep", async_sleep)
    anyio.run(clocks.async_sleep, 2)
    assert (clock(), clock.away) == (104, 7200)


def test_the_clock_of_this_process_runs() -> None:
    before = clocks.clock()
    assert before <= clocks.clock() <= time.monotonic()
