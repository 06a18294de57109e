"""Twenty seconds of steady load with mixed faults; ``make soak`` is half an hour."""

from __future__ import annotations

import sys

import pytest

from soak.soak import Measured, soak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_seconds_leave_nothing() -> None:
    soaked = soak(20)
    assert soaked.wrong == []
    assert soaked.grown == []
    assert soaked.counts["whole"] > 20
    assert soaked.counts["cut"] > 2


def test_what_has_grown_is_told() -> None:
    before = Measured(rss=100 * 2**20, sockets=10, threads=8, tasks=4)
    assert before.exceeds(before) == []
    after = Measured(rss=200 * 2**20, sockets=100, threads=9, tasks=5)
    assert after.exceeds(before) == [
        "200.0 MiB of memory after 100.0",
        "100 sockets after 10",
        "9 threads after 8",
        "5 tasks after 4",
    ]
