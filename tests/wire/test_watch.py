"""Virtual time: a test says what the clock reads."""

from __future__ import annotations

import math

import pytest

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import PING_FRAME, Inbound
from unbroken.wire.watch import Watch
from wire.test_frames import OUR_PONG, goaway

LIMITS = Limits(connect=10, idle=600, until=None, ping=10, ping_timeout=20)


def started(limits: Limits = LIMITS, *, http2: bool = True) -> Watch:
    """A watch over a request that was sent at 0."""
    watch = Watch(limits, 0)
    if http2:
        watch.speak_http2(Inbound())
    watch.begin_request(0, 1)
    watch.listens(0)
    return watch


def failure(watch: Watch, now: float) -> Failure | None:
    try:
        watch.check(now)
    except WireError as error:
        return error.failure
    return None


@pytest.mark.parametrize("now", [0, 9.9])
def test_connecting_may_take_its_time(now: float) -> None:
    watch = Watch(LIMITS, 0)
    assert failure(watch, now) is None
    assert watch.wait(now) == pytest.approx(10 - now)


def test_connecting_takes_too_long() -> None:
    assert failure(Watch(LIMITS, 0), 10) is Failure.CONNECT_TIMEOUT


def test_once_the_request_is_sent_the_limit_for_connecting_is_over() -> None:
    assert failure(started(), 11) is None


def test_silence_is_counted_from_the_last_byte_either_way() -> None:
    watch = started(http2=False)
    watch.wrote(5)
    assert (watch.silent(7), failure(watch, 604.9), failure(watch, 605)) == (2, None, Failure.IDLE_TIMEOUT)
    watch.heard(b"x", 100)
    assert (watch.silent(101), failure(watch, 699), failure(watch, 700)) == (1, None, Failure.IDLE_TIMEOUT)
    assert watch.received == 1


def test_while_nobody_listens_there_is_no_silence() -> None:
    watch = started(http2=False)
    watch.listens(1000)
    assert (failure(watch, 1599), failure(watch, 1600)) == (None, Failure.IDLE_TIMEOUT)
    assert watch.silent(1000) == 1000  # what is told of the path is the truth all the same


def test_a_deadline_ends_the_wait_in_every_phase() -> None:
    limits = Limits(connect=10, idle=600, until=5, ping=0, ping_timeout=20)
    for watch in (Watch(limits, 0), started(limits)):
        assert watch.wait(2) == 3
        assert (failure(watch, 4.9), failure(watch, 5)) == (None, Failure.DEADLINE)


def test_limits_may_be_replaced_on_the_way() -> None:
    watch = started()
    watch.limits = Limits(connect=10, idle=600, until=1, ping=10, ping_timeout=20)
    assert failure(watch, 1) is Failure.DEADLINE


def test_a_ping_goes_out_after_a_silence() -> None:
    watch = started()
    assert (watch.ping(9.9), watch.wait(9)) == (b"", 1)
    assert watch.ping(10) == PING_FRAME
    assert watch.ping(10.1) == b""  # one at a time


def test_whatever_is_heard_puts_off_the_next_ping() -> None:
    watch = started()
    watch.heard(b"", 4)
    assert (watch.ping(13.9), watch.ping(14)) == (b"", PING_FRAME)


def test_an_answered_ping_tells_the_round_trip_and_is_followed_by_another() -> None:
    watch = started()
    watch.ping(10)
    assert watch.heard(OUR_PONG, 10.25) == b""
    assert watch.round_trip == 0.25
    assert (watch.ping(20.2), watch.ping(20.25)) == (b"", PING_FRAME)


def test_while_pings_are_answered_the_idle_limit_does_not_pass() -> None:
    watch = started()
    for now in range(10, 2000, 11):
        assert watch.ping(now) == PING_FRAME
        watch.heard(OUR_PONG, now + 1)
        assert failure(watch, now + 11) is None


def test_an_unanswered_ping_means_that_the_path_is_dead() -> None:
    watch = started()
    watch.ping(10)
    assert (watch.wait(11), failure(watch, 29.9), failure(watch, 30)) == (19, None, Failure.DEAD_PATH)


def test_any_byte_is_a_sign_of_life() -> None:
    watch = started()
    watch.ping(10)
    watch.heard(b"", 25)
    assert (failure(watch, 44.9), failure(watch, 45)) == (None, Failure.DEAD_PATH)


def test_an_answer_that_could_not_be_heard_is_not_missed() -> None:
    watch = started()
    watch.ping(10)
    watch.heard(b"", 10.1)
    watch.listens(100)
    assert failure(watch, 101) is None
    watch.heard(OUR_PONG, 101)
    assert failure(watch, 400) is None


@pytest.mark.parametrize(
    "watch",
    [
        started(http2=False),
        started(Limits(connect=10, idle=math.inf, until=None, ping=0, ping_timeout=20)),
        Watch(LIMITS, 0),
    ],
    ids=["HTTP/1.1", "switched off", "before the request"],
)
def test_no_ping(watch: Watch) -> None:
    assert watch.ping(500) == b""


def test_who_cannot_send_a_ping_is_not_told_to_wait_for_it() -> None:
    assert (started().wait(11, reading=False), started().wait(11)) == (589, 0.001)


def test_a_goaway_that_covers_our_stream_changes_nothing() -> None:
    watch = started()
    assert watch.heard(goaway(1) + OUR_PONG, 1) == b""
    assert failure(watch, 1) is None


@pytest.mark.parametrize("request_sent", [True, False])
def test_a_goaway_that_leaves_our_stream_out_means_that_it_was_not_processed(request_sent: bool) -> None:
    watch = started() if request_sent else Watch(LIMITS, 0)
    watch.speak_http2(Inbound())
    with pytest.raises(WireError, match="GOAWAY ENHANCE_YOUR_CALM") as caught:
        watch.heard(goaway(0, 0xB), 1)
    assert caught.value.failure is Failure.NOT_PROCESSED
