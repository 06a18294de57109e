"""PING is bounded: one in flight, one a second at most; a path that complains gets half as many, and then none."""

from __future__ import annotations

import pytest

from unbroken.core.http import Request
from unbroken.wire import keepalive
from unbroken.wire.keepalive import Complaints, KeepaliveMonitor, LearnedIntervals
from unbroken.wire.pool import Pool
from unbroken.wire.proxies import parse_proxy
from unbroken.wire.requests import Destination

REQUEST = Request("POST", "https://api.test/v1")
DIRECT = Destination.of(REQUEST, None)
PROXIED = Destination.of(REQUEST, parse_proxy("http://proxy.test:1"))


@pytest.mark.parametrize(
    ("interval", "step", "spacing"),
    [(10, 0, 10), (10, 1, 20), (10, 2, None), (0, 0, None), (0.2, 0, 1), (0.2, 1, 1), (0.8, 1, 1.6)],
)
def test_the_spacing(monkeypatch: pytest.MonkeyPatch, interval: float, step: int, spacing: float | None) -> None:
    monkeypatch.setattr(keepalive, "MIN_INTERVAL", 1.0)
    assert KeepaliveMonitor(0, step).spacing(interval) == spacing


def test_one_is_in_flight_at_most() -> None:
    pings = KeepaliveMonitor(0, 0)
    assert pings.due(10, 3) == 13
    pings.sent(13)
    assert pings.due(10, 3) is None
    pings.answered(14)
    assert (pings.due(10, 14), pings.round_trip) == (24, 1)


def test_an_answer_to_nothing_is_no_round_trip() -> None:
    pings = KeepaliveMonitor(0, 0)
    pings.answered(5)
    assert pings.round_trip is None


def test_complaints_are_remembered_by_route() -> None:
    complaints = Complaints()
    complaints.record(DIRECT, 0)
    assert (complaints.step(DIRECT), complaints.step(PROXIED)) == (1, 0)
    complaints.record(DIRECT, 1)
    complaints.record(DIRECT, 2)
    assert complaints.step(DIRECT) == 2


def test_connections_of_the_same_time_complain_once() -> None:
    complaints = Complaints()
    for _ in range(3):
        complaints.record(DIRECT, 0)
    assert complaints.step(DIRECT) == 1


class TestWhatCutsHaveTaught:
    def test_is_remembered_by_route_for_an_hour(self) -> None:
        learned = LearnedIntervals()
        learned.record(DIRECT, 2.0, 100)
        assert (learned.get(DIRECT, 101), learned.get(PROXIED, 101)) == (2.0, None)
        assert (learned.get(DIRECT, 3699.9), learned.get(DIRECT, 3700)) == (2.0, None)

    def test_of_the_same_time_is_the_shortest(self) -> None:
        learned = LearnedIntervals()
        for interval in (3.0, 2.0, 4.0):
            learned.record(DIRECT, interval, 0)
        assert learned.get(DIRECT, 1) == 2.0

    def test_is_forgotten_at_a_complaint(self) -> None:
        pool = Pool(proxy="", verify=False, http2=True, environ={})
        pool.lower_ping(DIRECT, 2.0)
        assert pool.pings(DIRECT).spacing(10) == 2.0
        pool.complain(DIRECT, 0)
        pool.lower_ping(DIRECT, 2.0)  # by an attempt that ran beside
        assert pool.pings(DIRECT).spacing(10) == 20.0

    @pytest.mark.parametrize(("asked", "spacing"), [(10, 2.0), (1.5, 1.5), (0, None)])
    def test_never_turns_ping_on_or_makes_it_rarer(self, asked: float, spacing: float | None) -> None:
        assert KeepaliveMonitor(0, 0, learned=2.0).spacing(asked) == spacing
