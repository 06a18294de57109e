"""The loop, on a wire that follows a script: this happens, then that is done. Both drivers, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.scripted import (
    ANSWER,
    DONE,
    OK,
    ROLE,
    STOP,
    TOKEN,
    Happening,
    Make,
    ScriptedWire,
    make_async_driver,
    make_driver,
    reset,
)
from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.report import Progress
from unbroken.core.suspicion import Recovered, SecondFailed, SecondStands, Suspected
from unbroken.errors import StateError, StreamCut, WireError

BUSY = Head(503, ((b"retry-after", b"7"),))


@pytest.fixture(params=[make_driver, make_async_driver], ids=["blocking", "asynchronous"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


PLAYBOOK: list[tuple[str, list[tuple[Happening, ...]], list[str]]] = [
    ("goes well", [ANSWER], ["send"] + ["read"] * 5 + ["close"]),
    (
        "is cut after the role: closed, and sent again at once",
        [(OK, ROLE, reset()), ANSWER],
        ["send", "read", "read", "close"] + ["send"] + ["read"] * 5 + ["close"],
    ),
    (
        "is cut three times: closed before each wait, and the waits grow",
        [(OK, reset()), (OK, reset()), (reset(),), ANSWER],
        ["send", "read", "close", "send", "read", "close", "sleep 0.5", "send", "close", "sleep 1"]
        + ["send"] + ["read"] * 5 + ["close"],
    ),
    (
        "is refused: closed, and asked again when the server said",
        [(BUSY, b""), ANSWER],
        ["send", "read", "close", "sleep 7", "send"] + ["read"] * 5 + ["close"],
    ),
    (
        "is lost after the finish reason: closed, and over",
        [(OK, TOKEN, STOP, reset())],
        ["send", "read", "read", "read", "close"],
    ),
    ("is not worth asking again", [(Head(401), b"{}", b"")], ["send", "read", "read", "close"]),
]  # fmt: skip


@pytest.mark.parametrize(("scripts", "log"), [case[1:] for case in PLAYBOOK], ids=[case[0] for case in PLAYBOOK])
def test_a_turn_that(make: Make, scripts: list[tuple[Happening, ...]], log: list[str]) -> None:
    wire = ScriptedWire(*scripts)
    driver = make(wire)
    driver.open()
    assert b"".join(driver)
    assert wire.log == log


def test_gives_the_head_and_then_the_bytes(make: Make) -> None:
    driver = make(ScriptedWire(ANSWER))
    assert driver.open() == OK
    assert list(driver) == [ROLE + TOKEN, STOP, DONE]
    assert list(driver) == []
    assert driver.phase is Phase.COMPLETE
    assert len(driver.report.attempts) == 1


def test_raises_what_the_turn_says_and_goes_on_raising_it(make: Make) -> None:
    wire = ScriptedWire((OK, TOKEN, reset()))
    driver = make(wire)
    driver.open()
    assert next(driver) == TOKEN
    for _ in range(2):
        with pytest.raises(StreamCut):
            next(driver)
    assert wire.log == ["send", "read", "read", "close"]


def test_asks_for_identity_and_leaves_the_rest_of_the_request_alone(make: Make) -> None:
    wire = ScriptedWire(ANSWER)
    make(wire).open()
    assert wire.exchanges[0].request.headers == (
        (b"authorization", b"Bearer sk-secret"),
        (b"accept-encoding", b"identity"),
    )


def test_hands_the_wire_the_limits_that_hold(make: Make) -> None:
    wire = ScriptedWire(ANSWER)
    driver = make(wire, Policy(first_output_timeout=100, settle_timeout=3, idle_timeout=50))
    driver.open()
    list(driver)
    (_, first), *_ = wire.limits
    assert (first.idle, first.until) == (50, 1100)
    assert [limits.until for _, limits in wire.limits] == [1100, 1100, 1100, None, 1007, 1005.5]


def test_its_limits_count_from_its_opening(make: Make) -> None:
    wire = ScriptedWire((OK, reset()), ANSWER)
    driver = make(wire, Policy(first_output_timeout=100, give_up_after=60))
    wire.now += 10_000
    driver.open()
    assert wire.limits[0][1].until == 11_100
    assert driver.attempt == 2


def test_tells_before_it_waits(make: Make) -> None:
    wire = ScriptedWire((BUSY, b""), (OK, reset()), ANSWER)
    told: list[RetryEvent] = []

    def on_retry(event: RetryEvent) -> None:
        told.append(event)
        wire.log.append(event.action)

    make(wire, on_retry=on_retry).open()
    assert wire.log[:10] == ["send", "read", "close", "retry", "sleep 7", "send", "read", "close", "replay", "send"]
    assert [(event.attempt, event.delay, event.lost.silent) for event in told] == [(1, 7, 0), (2, 0, 1.5)]


def test_a_path_that_does_not_answer_is_told_and_its_exchange_goes_on(make: Make) -> None:
    said: list[str] = []
    events = (Suspected(20), SecondFailed(Failure.NO_ROUTE), SecondStands())
    wire = ScriptedWire((*events, lambda: said.append(driver.progress.suspicion), Recovered(), *ANSWER))
    told: list[PathNotice] = []
    driver = make(wire, on_path=told.append)
    assert driver.open() == OK
    assert driver.progress.suspicion == ""
    assert list(driver) == [ROLE + TOKEN, STOP, DONE]
    assert wire.log == ["send"] + ["read"] * 9 + ["close"]
    probes = [limits.probe for _, limits in wire.limits]
    assert probes[:5] == [None, 1001, 1002.5, None, None]
    assert [limits.revive for _, limits in wire.limits][:5] == [None, None, None, 1033, None]
    assert [notice.text.partition(", ")[2] for notice in told] == [
        "trying a second connection beside it",
        "waiting for the network",
        "a second connection stands: the first has 30 s to come back",
        "after 24 s",
    ]
    assert said == ["no answer from the path for 23 s, a second connection stands: the first has 30 s to come back"]


def test_a_path_that_is_given_up_is_closed_and_the_request_sent_once_more(make: Make) -> None:
    wire = ScriptedWire((Suspected(20), SecondStands(), WireError(Failure.DEAD_PATH)), ANSWER)
    driver = make(wire)
    driver.open()
    assert wire.log[:5] == ["send", "read", "read", "close", "send"]
    assert driver.report.attempts[0].failure == "dead_path"


class TestTheConnectionIsClosedWhen:
    def test_an_observer_raises(self, make: Make) -> None:
        def on_retry(event: RetryEvent) -> None:
            raise ZeroDivisionError

        wire = ScriptedWire((OK, ROLE, reset()), ANSWER)
        driver = make(wire, on_retry=on_retry)
        with pytest.raises(ZeroDivisionError):
            driver.open()
        assert wire.log == ["send", "read", "read", "close"]
        assert len(wire.exchanges) == 1
        with pytest.raises(StateError):
            next(driver)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
    @pytest.mark.parametrize("before", [(), (OK, ROLE)], ids=["the headers", "output"])
    def test_anything_is_raised_before(
        self, make: Make, before: tuple[Happening, ...], error: type[BaseException]
    ) -> None:
        wire = ScriptedWire((*before, error()), ANSWER)
        driver = make(wire)
        with pytest.raises(error):
            driver.open()
        assert wire.log[-1] == "close"
        assert len(wire.exchanges) == 1
        (attempt,) = driver.report.attempts
        assert attempt.failure == "cancelled"

    def test_the_turn_is_closed(self, make: Make) -> None:
        wire = ScriptedWire(ANSWER)
        driver = make(wire)
        driver.open()
        next(driver)
        driver.close()
        driver.close()
        assert wire.log == ["send", "read", "read", "close"]
        (attempt,) = driver.report.attempts
        assert (attempt.failure, attempt.phase) == ("cancelled", Phase.OUTPUT)


class TestWhatWasClosedNeverLooksWhole:
    def test_to_who_iterates_on(self, make: Make) -> None:
        driver = make(ScriptedWire(ANSWER))
        driver.open()
        next(driver)
        driver.close()
        for _ in range(2):
            with pytest.raises(StateError, match="closed before its end"):
                next(driver)

    def test_to_who_opens_it(self, make: Make) -> None:
        wire = ScriptedWire(ANSWER)
        driver = make(wire)
        driver.close()
        with pytest.raises(StateError, match="closed before its end"):
            driver.open()
        assert wire.log == []

    @pytest.mark.parametrize("comes", [b"", TOKEN, reset()], ids=["an end", "bytes", "an error"])
    @pytest.mark.parametrize("before", [(), (OK,), (OK, TOKEN)], ids=["the headers", "output", "the end"])
    def test_to_who_was_waiting_for_the_wire(self, make: Make, before: tuple[Happening, ...], comes: Happening) -> None:
        if not before and isinstance(comes, bytes):
            comes = OK
        wire = ScriptedWire((*before, lambda: leave(driver), comes), ANSWER)
        driver = make(wire)
        with pytest.raises(StateError, match="closed before its end"):
            read_all(driver)
        assert len(wire.exchanges) == 1
        assert wire.log[-1] == "close"
        assert [attempt.failure for attempt in driver.report.attempts] == ["cancelled"]

    def test_to_who_was_asleep(self, make: Make) -> None:
        wire = ScriptedWire((BUSY, b""), ANSWER)
        wire.while_asleep = lambda: leave(driver)
        driver = make(wire)
        with pytest.raises(StateError, match="closed before its end"):
            driver.open()
        assert wire.log == ["send", "read", "close", "sleep 7"]


def read_all(driver: Any) -> None:
    driver.open()
    list(driver)


def leave(driver: Any) -> object:
    """Close a driver as another thread or task would, while this one waits in it."""
    return driver.leave() if hasattr(driver, "leave") else driver.close()


def test_is_opened_once(make: Make) -> None:
    wire = ScriptedWire(ANSWER)
    driver = make(wire)
    with pytest.raises(StateError, match="open the turn first"):
        next(driver)
    driver.open()
    with pytest.raises(StateError, match="opened once"):
        driver.open()
    assert b"".join(driver) == ROLE + TOKEN + STOP + DONE
    assert len(wire.exchanges) == 1


def test_tells_how_far_the_running_attempt_has_come(make: Make) -> None:
    seen = []
    wire = ScriptedWire((OK, reset()), ANSWER)
    driver = make(wire, on_retry=lambda event: seen.append(driver.progress))
    assert driver.progress == Progress(phase=Phase.CONNECT, attempt=1)
    driver.open()
    assert [(progress.attempt, progress.sent) for progress in seen] == [(2, False)], "nothing of it was sent yet"
    assert (driver.progress.phase, driver.progress.attempt, driver.progress.sent) == (Phase.OUTPUT, 2, True)
    assert driver.progress.round_trip == wire.exchanges[1].path.round_trip
    list(driver)
    assert driver.progress == Progress(phase=Phase.COMPLETE, attempt=2)


class TestTheRunningAttempt:
    def test_is_described_with_what_its_path_knows(self, make: Make) -> None:
        wire = ScriptedWire(ANSWER)
        driver = make(wire)
        first = driver.running
        assert (first.number, first.phase, first.elapsed, first.silent) == (1, Phase.CONNECT, 0, 0)
        driver.open()
        spoken = driver.running
        assert (spoken.phase, spoken.headers_after, spoken.output_after) == (Phase.OUTPUT, 1, 3)
        assert (spoken.elapsed, spoken.silent) == (3, 1.5)

    def test_waits_for_headers_once_its_request_is_sent(self, make: Make) -> None:
        wire = ScriptedWire((lambda: phases.append(driver.running.phase), *ANSWER))
        phases: list[Phase] = []
        driver = make(wire)
        driver.open()
        assert phases == [Phase.HEADERS]

    def test_is_the_next_one_between_two(self, make: Make) -> None:
        wire = ScriptedWire((BUSY, b""), ANSWER)
        found = []
        wire.while_asleep = lambda: found.append(driver.running)
        driver = make(wire)
        driver.open()
        [waiting] = found
        assert (waiting.number, waiting.phase, waiting.after, waiting.silent) == (2, Phase.CONNECT, 9, 0)

    def test_is_none_once_the_turn_is_over(self, make: Make) -> None:
        driver = make(ScriptedWire(ANSWER))
        driver.open()
        list(driver)
        assert driver.running is None
        driver = make(ScriptedWire(ANSWER))
        driver.open()
        driver.close()
        assert driver.running is None
