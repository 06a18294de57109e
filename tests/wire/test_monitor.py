"""Virtual time: a test says what the clock reads."""

from __future__ import annotations

import math

import msgspec
import pytest

from unbroken.core.actions import CallerTimeouts, Limits
from unbroken.core.failures import Failure
from unbroken.core.route import RouteRecord
from unbroken.core.suspicion import PathEvent, Recovered, Suspected
from unbroken.errors import WireError
from unbroken.wire.keepalive import KeepaliveMonitor
from unbroken.wire.monitor import Monitor
from unbroken.wire.tcp import TcpState

LIMITS = Limits(connect=10, idle=600, until=None, ping=10, ping_timeout=20)


def started(limits: Limits = LIMITS, *, http2: bool = True) -> Monitor:
    """The clock of a request that was sent at 0."""
    monitor = Monitor(limits, 0)
    monitor.begin_request(0, KeepaliveMonitor(0, 0) if http2 else None)
    monitor.listens(0)
    return monitor


def failure(monitor: Monitor, now: float, *, sending: bool = False) -> Failure | None:
    try:
        monitor.check(now, sending=sending)
    except WireError as error:
        return error.failure
    return None


def answered(monitor: Monitor, now: float) -> None:
    """The answer to a PING has come."""
    assert monitor.keepalive
    monitor.keepalive.answered(now)
    monitor.heard(now, of_response=False)


def pinged(monitor: Monitor, now: float) -> bool:
    """Whether a PING is sent."""
    due = monitor.ping_is_due(now)
    if due:
        monitor.pinged(now)
    return due


@pytest.mark.parametrize("now", [0, 9.9])
def test_connecting_may_take_its_time(now: float) -> None:
    monitor = Monitor(LIMITS, 0)
    assert failure(monitor, now) is None
    assert monitor.wait(now) == pytest.approx(10 - now)


def test_connecting_takes_too_long() -> None:
    assert failure(Monitor(LIMITS, 0), 10) is Failure.CONNECT_TIMEOUT


def test_once_the_request_is_sent_the_limit_for_connecting_is_over() -> None:
    assert failure(started(), 11) is None


def test_silence_is_counted_from_the_last_byte_of_the_request_or_the_response() -> None:
    monitor = started(http2=False)
    monitor.wrote(5, of_request=True)
    assert (monitor.silent(7), failure(monitor, 604.9), failure(monitor, 605)) == (2, None, Failure.IDLE_TIMEOUT)
    monitor.heard(100, of_response=True)
    monitor.responded(100, awaits_head=True)
    assert (monitor.silent(101), failure(monitor, 699), failure(monitor, 700)) == (1, None, Failure.IDLE_TIMEOUT)


def test_what_is_written_beside_the_request_is_no_progress() -> None:
    monitor = started(Limits(10, 600, None, 10, 20, CallerTimeouts(read=5)))
    monitor.wrote(4, of_request=False)
    assert (monitor.silent(4.5), failure(monitor, 5)) == (4.5, Failure.CALLER_TIMEOUT)


def test_while_nobody_listens_there_is_no_silence() -> None:
    monitor = started(http2=False)
    monitor.listens(1000)
    assert (failure(monitor, 1599), failure(monitor, 1600)) == (None, Failure.IDLE_TIMEOUT)
    assert monitor.silent(1000) == 1000  # what is told of the path is the truth all the same


def test_a_deadline_ends_the_wait_in_every_phase() -> None:
    limits = Limits(connect=10, idle=600, until=5, ping=0, ping_timeout=math.inf)
    for monitor in (Monitor(limits, 0), started(limits)):
        assert monitor.wait(2) == 3
        assert (failure(monitor, 4.9), failure(monitor, 5)) == (None, Failure.DEADLINE)


def test_limits_may_be_replaced_on_the_way() -> None:
    monitor = started()
    monitor.limits = Limits(connect=10, idle=600, until=1, ping=10, ping_timeout=20)
    assert failure(monitor, 1) is Failure.DEADLINE


def test_a_ping_goes_out_after_a_silence() -> None:
    monitor = started()
    assert (pinged(monitor, 9.9), monitor.wait(9)) == (False, 1)
    assert pinged(monitor, 10)
    assert not pinged(monitor, 25)  # one at a time


def test_whatever_is_heard_puts_off_the_next_ping() -> None:
    monitor = started()
    monitor.heard(4, of_response=True)
    assert (pinged(monitor, 13.9), pinged(monitor, 14)) == (False, True)


def test_an_answered_ping_tells_the_round_trip_and_is_followed_by_another() -> None:
    monitor = started()
    assert monitor.round_trip is None
    assert pinged(monitor, 10)
    answered(monitor, 10.25)
    assert monitor.round_trip == 0.25
    assert (pinged(monitor, 20.2), pinged(monitor, 20.25)) == (False, True)


def test_while_pings_are_answered_the_idle_limit_does_not_pass() -> None:
    monitor = started()
    for now in range(10, 2000, 11):
        assert pinged(monitor, now)
        answered(monitor, now + 1)
        assert failure(monitor, now + 11) is None


def reported(monitor: Monitor, now: float) -> PathEvent | None:
    """What is to be reported of the path, which is then reported."""
    monitor.suspect(now)
    event, monitor.event = monitor.event, None
    return event


def test_an_unanswered_ping_is_a_suspicion_and_reported_once() -> None:
    monitor = started()
    assert pinged(monitor, 10)
    assert (monitor.wait(25), reported(monitor, 29.9)) == (5, None)
    assert reported(monitor, 30) == Suspected(20)
    assert (reported(monitor, 31), failure(monitor, 599), failure(monitor, 600)) == (None, None, Failure.IDLE_TIMEOUT)


def test_any_byte_is_a_sign_of_life() -> None:
    monitor = started()
    assert pinged(monitor, 10)
    monitor.heard(25, of_response=True)
    assert (reported(monitor, 44.9), reported(monitor, 45)) == (None, Suspected(35))


def test_a_suspected_path_that_is_heard_has_recovered_and_may_be_suspected_again() -> None:
    monitor = started()
    assert pinged(monitor, 10)
    assert reported(monitor, 30)
    answered(monitor, 40)
    assert (reported(monitor, 40), reported(monitor, 49)) == (Recovered(), None)
    assert pinged(monitor, 50)
    assert reported(monitor, 70) == Suspected(20)


def test_a_suspected_path_is_given_up_at_the_limit_and_no_other() -> None:
    monitor = started()
    monitor.limits = msgspec.structs.replace(LIMITS, revive=60)
    assert pinged(monitor, 10)
    assert failure(monitor, 100) is None
    assert reported(monitor, 100)
    assert failure(monitor, 100) is Failure.DEAD_PATH


# What TCP knows: over HTTP/1.1, where there is no PING

ACKNOWLEDGED = TcpState(outstanding=False, acknowledged=9, retransmissions=0)


def unacknowledged(seconds: float, retransmissions: int = 0) -> TcpState:
    return TcpState(outstanding=True, acknowledged=seconds, retransmissions=retransmissions)


def test_what_tcp_has_sent_in_vain_is_a_suspicion() -> None:
    monitor = started(http2=False)
    assert (monitor.tcp_is_due(0.9), monitor.tcp_is_due(1), monitor.wait(0)) == (False, True, 1)
    monitor.take_tcp(50, ACKNOWLEDGED)
    monitor.take_tcp(51, unacknowledged(10.2))  # it was sent since the last look
    assert monitor.unanswered(60) == 10
    monitor.take_tcp(69.9, unacknowledged(29.1))
    assert (reported(monitor, 69.9), reported(monitor, 70)) == (None, Suspected(20))


@pytest.mark.parametrize("then", [ACKNOWLEDGED, unacknowledged(0.5)], ids=["all", "a part"])
def test_an_acknowledgement_ends_it(then: TcpState) -> None:
    monitor = started(http2=False)
    monitor.take_tcp(1, unacknowledged(1))
    monitor.take_tcp(21, unacknowledged(21))
    assert reported(monitor, 21)
    monitor.take_tcp(22, then)
    assert reported(monitor, 22) == Recovered()


def test_tcp_is_looked_at_seldom_while_nothing_is_unacknowledged() -> None:
    monitor = started(http2=False)
    monitor.take_tcp(1, ACKNOWLEDGED)
    assert (monitor.tcp_is_due(5.9), monitor.tcp_is_due(6)) == (False, True)
    monitor.take_tcp(6, unacknowledged(6))
    assert monitor.unanswered(6) == 1  # it may have been sent just before this look, or up to 5 s before
    assert (monitor.tcp_is_due(6.9), monitor.tcp_is_due(7)) == (False, True)


def test_a_system_that_tells_nothing_is_asked_once() -> None:
    monitor = started(http2=False)
    monitor.take_tcp(1, None)
    assert not monitor.tcp_is_due(500)


def test_where_the_system_tells_nothing_there_is_no_suspicion() -> None:
    monitor = started(http2=False)
    for now in range(1, 500):
        monitor.take_tcp(now, None)
        assert reported(monitor, now) is None


def test_over_http2_ping_tells_it_and_tcp_is_not_asked() -> None:
    assert not started().tcp_is_due(500)


def test_what_is_sent_again_in_vain_after_a_second_connection_stood_is_the_end() -> None:
    monitor = started()
    monitor.limits = msgspec.structs.replace(LIMITS, revive=70)
    assert pinged(monitor, 10)
    assert reported(monitor, 30)
    monitor.take_tcp(40, unacknowledged(30, 6))
    monitor.stood(40)
    for now in range(41, 51):
        assert monitor.tcp_is_due(now)
        monitor.take_tcp(now, unacknowledged(now - 10, 6))
        assert failure(monitor, now) is None
    monitor.take_tcp(51, unacknowledged(41, 7))
    assert (failure(monitor, 55.9), failure(monitor, 56)) == (None, Failure.DEAD_PATH)


def test_what_is_sent_again_and_acknowledged_is_no_such_sign() -> None:
    monitor = started()
    monitor.limits = msgspec.structs.replace(LIMITS, revive=70)
    assert pinged(monitor, 10)
    assert reported(monitor, 30)
    monitor.take_tcp(40, unacknowledged(30, 6))
    monitor.stood(40)
    monitor.take_tcp(41, unacknowledged(31, 7))
    monitor.take_tcp(42, ACKNOWLEDGED)
    assert (failure(monitor, 69), failure(monitor, 70)) == (None, Failure.DEAD_PATH)


def test_without_such_a_sign_it_has_its_whole_time() -> None:
    monitor = started()
    monitor.limits = msgspec.structs.replace(LIMITS, revive=70)
    assert pinged(monitor, 10)
    assert reported(monitor, 30)
    monitor.take_tcp(40, ACKNOWLEDGED)  # by a proxy on this machine
    monitor.stood(40)
    for now in range(41, 70):
        monitor.take_tcp(now, ACKNOWLEDGED)
        assert failure(monitor, now) is None
    assert failure(monitor, 70) is Failure.DEAD_PATH


# The process did not run


def test_on_waking_ping_is_due_at_once_and_soon_unanswered() -> None:
    monitor = started()
    monitor.runs(1, away=100)
    monitor.runs(2, away=100.5)  # a busy machine
    assert not monitor.ping_is_due(2)
    monitor.runs(3, away=4000)
    assert pinged(monitor, 3)
    assert (reported(monitor, 7.9), reported(monitor, 8)) == (None, Suspected(5))


def test_a_ping_from_before_has_its_time_from_the_waking() -> None:
    monitor = started()
    monitor.runs(1, away=0)
    assert pinged(monitor, 10)
    monitor.runs(12, away=3600)
    assert not monitor.ping_is_due(12)  # one at a time
    assert (reported(monitor, 16.9), reported(monitor, 17)) == (None, Suspected(7))


def test_who_answers_after_a_waking_is_no_suspect() -> None:
    monitor = started()
    monitor.runs(1, away=0)
    monitor.runs(2, away=3600)
    assert pinged(monitor, 2)
    answered(monitor, 3)
    assert (reported(monitor, 12.9), pinged(monitor, 13)) == (None, True)
    assert (reported(monitor, 32.9), reported(monitor, 33)) == (None, Suspected(20))


def test_an_answer_that_could_not_be_heard_is_not_missed() -> None:
    monitor = started()
    assert pinged(monitor, 10)
    monitor.heard(10.1, of_response=True)
    monitor.listens(100)
    assert failure(monitor, 101) is None
    answered(monitor, 101)
    assert failure(monitor, 400) is None


@pytest.mark.parametrize(
    "monitor",
    [
        started(http2=False),
        started(Limits(connect=10, idle=math.inf, until=None, ping=0, ping_timeout=20)),
        Monitor(LIMITS, 0),
    ],
    ids=["HTTP/1.1", "switched off", "before the request"],
)
def test_no_ping(monitor: Monitor) -> None:
    assert not monitor.ping_is_due(500)
    assert monitor.until_ping(500) is None


def test_who_does_not_wait_is_told_when_the_next_ping_is_due() -> None:
    monitor = started()
    assert monitor.until_ping(4) == 6
    assert pinged(monitor, 10)
    assert monitor.until_ping(10) == 10  # an answer may come at once


def test_the_caller_s_timeout_is_that_of_writing_until_all_is_sent() -> None:
    limits = Limits(10, 600, None, 10, 20, CallerTimeouts(connect=None, read=5, write=50))
    monitor = started(limits)
    assert (failure(monitor, 5), failure(monitor, 49, sending=True)) == (Failure.CALLER_TIMEOUT, None)
    assert failure(monitor, 50, sending=True) is Failure.CALLER_TIMEOUT
    assert (monitor.wait(1), monitor.wait(1, sending=True)) == (4, 9)


def test_what_is_no_part_of_the_response_does_not_feed_the_caller_s_timeout() -> None:
    monitor = started(Limits(10, 600, None, 10, 20, CallerTimeouts(read=5)))
    answered(monitor, 4)
    assert failure(monitor, 5) is Failure.CALLER_TIMEOUT


def test_while_the_caller_produces_the_request_no_silence_counts() -> None:
    monitor = started(Limits(10, 600, 2000, 0, math.inf, CallerTimeouts(read=5)))
    monitor.awaits_caller = True
    assert (failure(monitor, 1999), monitor.wait(0)) == (None, 2000)
    monitor.awaits_caller = False
    assert failure(monitor, 1999) is Failure.CALLER_TIMEOUT


def test_floods_are_limited() -> None:
    monitor = started()
    monitor.limit_floods(0, 1024 * 1024, 1000, answered=False)
    with pytest.raises(WireError, match="no headers"):
        monitor.limit_floods(0, 1024 * 1024 + 1, 0, answered=False)
    monitor.limit_floods(10, 10 * 1024 * 1024, 2000, answered=True)
    with pytest.raises(WireError, match="floods"):
        monitor.limit_floods(10, 0, 2001, answered=True)


# A stall: PING is answered, and nothing comes of the response

STALLING = msgspec.structs.replace(LIMITS, stall=60)


def test_answers_to_ping_do_not_put_a_stall_off() -> None:
    monitor = started(STALLING)
    for now in range(10, 60, 10):
        assert pinged(monitor, now)
        answered(monitor, now)
        assert failure(monitor, now) is None
    assert monitor.wait(50) == pytest.approx(10)
    assert failure(monitor, 60) is Failure.STALLED


def test_bytes_of_the_response_do() -> None:
    monitor = started(STALLING)
    monitor.heard(59, of_response=True)
    assert failure(monitor, 118) is None
    assert failure(monitor, 119) is Failure.STALLED


def test_what_the_caller_did_meanwhile_is_no_stall() -> None:
    monitor = started(STALLING)
    monitor.listens(100)
    assert failure(monitor, 159) is None


def test_an_unanswered_ping_is_told() -> None:
    monitor = started()
    assert monitor.unanswered(10) is None
    assert pinged(monitor, 10)
    assert monitor.unanswered(22) == 12
    answered(monitor, 23)
    assert monitor.unanswered(23) is None
    assert started(http2=False).unanswered(50) is None


class TestTheRecord:
    def test_before_the_request_it_is_the_route(self) -> None:
        monitor = Monitor(LIMITS, 0)
        monitor.route = RouteRecord(host="api.test", proxy="http://proxy.test:1", secure=True)
        assert monitor.record == monitor.route

    @pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
    def test_knows_the_version_before_the_headers(self, http2: bool, version: str) -> None:
        assert started(http2=http2).record.http_version == version

    def test_counts_pings_and_says_whether_they_kept_the_silence_busy(self) -> None:
        monitor = started()
        assert (monitor.record.ping, monitor.record.pings_sent, monitor.record.kept_busy) == (10, 0, False)
        assert pinged(monitor, 10)
        assert (monitor.record.pings_sent, monitor.record.pings_answered) == (1, 0)
        answered(monitor, 11)
        assert (monitor.record.pings_answered, monitor.record.kept_busy, monitor.silent(12)) == (1, True, 12)
        monitor.responded(13, awaits_head=True)
        assert (monitor.record.kept_busy, monitor.silent(14)) == (False, 1)

    def test_waiting_for_the_head_is_its_longest_silence(self) -> None:
        monitor = started(http2=False)
        for now in (2, 62, 63):  # an informational response, and a final one in two pieces
            monitor.responded(now, awaits_head=True)
        monitor.responded(200, awaits_head=False)
        assert monitor.record.waited == 60

    def test_without_ping_there_is_no_interval(self) -> None:
        assert started(Limits(10, 600, None, 0, 20)).record.ping == 0
        assert started(http2=False).record.ping == 0

    def test_a_learned_interval_is_in_effect_and_a_complaint_outranks_it(self) -> None:
        monitor = Monitor(LIMITS, 0)
        monitor.begin_request(0, KeepaliveMonitor(0, 0, learned=2.0))
        assert (monitor.record.ping, monitor.record.ping_learned, monitor.record.ping_refused) == (2, True, False)
        monitor.begin_request(0, KeepaliveMonitor(0, 1, learned=2.0))
        assert (monitor.record.ping, monitor.record.ping_learned, monitor.record.ping_refused) == (20, False, True)
