"""The rule, whatever happens: until an attempt speaks, nothing of it is shown; once it speaks, nothing of it is
altered; once it has told how it ended, it is over.
"""

from __future__ import annotations

import dataclasses
import json
import zlib

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from properties.world import MAX_EVENT, SECONDS, Heard, Script, rarely, scripts
from unbroken.core.actions import Action, Drop, EndTurn, Fail, Give, GiveHead, Limits, Notify, Read, Send, Wait
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.failures import Failure
from unbroken.core.http import Head
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.core.turn import Turn
from unbroken.errors import StreamCut

MAX_PRELUDE = 1500


@dataclasses.dataclass
class Exchange:
    """One attempt, as its server sees it."""

    script: Script
    streaming: bool
    step: int = 0
    received: bytes = b""
    ended: bool = False

    def __post_init__(self) -> None:
        self.pieces = self.script.wire_pieces(streaming=self.streaming)
        self.decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def pause(self) -> float:
        self.step += 1
        return self.script.pause(self.step)

    def next_piece(self) -> bytes | None:
        piece = next(self.pieces, None)
        if piece is not None:
            self.received += self.decoder.decompress(piece) if self.script.compressed else piece
        return piece


class Driver:
    """Drives a turn through scripts, and holds it to the rule at every step.

    Args:
        plan: one script for each attempt; the last one goes on for ever.
        leaves_at: the step at which the caller leaves, if it does.
    """

    def __init__(self, plan: list[Script], policy: Policy, *, streaming: bool, choices: int, leaves_at: int) -> None:
        self.plan = plan
        self.policy = policy
        self.replays = 3 if policy.replays is None else policy.replays
        self.choices = choices
        self.streaming = streaming
        self.now = 0.0
        call = Call(OPENAI_CHAT, Generation(streaming, choices))
        self.turn = Turn(call, policy, now=0.0, random=lambda: 0.5, wall_clock=lambda: self.now)
        self.exchange = Exchange(plan[0], streaming)
        self.attempts = 0
        self.head: Head | None = None
        self.handed_on = b""
        self.told: Notify | None = None
        self.retries_in_a_row = 0
        self.tried_since = 0.0
        self.leaves_at = leaves_at
        self.left = False

    def run(self) -> Fail | EndTurn:
        """The whole turn."""
        for step in range(20_000):
            if step == self.leaves_at:
                recorded = len(self.turn.report.attempts)
                self.turn.cancelled(self.now, sent=self.exchange.step > 0)
                self.left = len(self.turn.report.attempts) > recorded  # otherwise it was over already
            action = self.turn.next()
            if isinstance(action, EndTurn | Fail):
                assert self.turn.next() == action
                return action
            self.obey(action)
        raise AssertionError("a turn ends in a bounded number of steps")

    def obey(self, action: Action) -> None:
        assert not self.left, "whoever has left is told nothing more"
        match action:
            case Send(number, limits):
                self.send(number, limits)
            case Read(limits):
                self.check_promptness()
                self.read(limits)
            case GiveHead(head):
                self.check_head(head)
            case Give(data):
                self.check_bytes(data)
            case Notify():
                self.check_told(action)
            case Wait(seconds):
                assert self.told is not None
                assert seconds == self.told.event.delay
                assert 0 <= seconds <= max(self.policy.backoff_max, self.policy.retry_after_max)
                self.now += seconds
            case Drop():
                self.exchange.ended = True

    # What the world does

    def send(self, number: int, limits: Limits) -> None:
        assert self.head is None, "once an attempt has spoken there is no other"
        assert number == self.attempts + 1
        assert number == 1 or self.now <= self.tried_since + self.policy.give_up_after
        script = self.plan[min(self.attempts, len(self.plan) - 1)]
        self.exchange = Exchange(script, self.streaming)
        self.attempts = number
        if self.passes(self.exchange.pause(), limits):
            return
        if script.before:
            self.turn.lost(script.before, "", self.now, sent=False)
        elif not script.status:
            self.turn.lost(script.loss or Failure.RESET, "", self.now, sent=True, silent=1.0)
        else:
            fields = (
                {"content-type": self.content_type}
                | script.headers
                | ({"content-encoding": "gzip"} if script.compressed else {})
            )
            headers = tuple((name.encode(), value.encode()) for name, value in fields.items())
            self.turn.head(Head(script.status, headers), self.now)

    def read(self, limits: Limits) -> None:
        exchange = self.exchange
        assert not exchange.ended, "nothing is read from an exchange that has ended"
        if self.passes(exchange.pause(), limits):
            return
        if (piece := exchange.next_piece()) is not None:
            self.turn.data(piece, self.now)
            return
        exchange.ended = True
        if exchange.script.loss:
            self.turn.lost(exchange.script.loss, "", self.now, sent=True, silent=2.0)
        else:
            self.turn.end(self.now)

    def passes(self, seconds: float, limits: Limits) -> bool:
        """Let time pass; whether that was too long for the wire's limits."""
        if limits.until is None or self.now + seconds < limits.until:
            self.now += seconds
            return False
        self.now = max(self.now, limits.until)
        self.exchange.ended = True
        self.turn.lost(Failure.DEADLINE, "", self.now, sent=True, silent=seconds)
        return True

    # What the rule demands

    @property
    def expected(self) -> str:
        return "text/event-stream" if self.streaming else "application/json"

    @property
    def content_type(self) -> str:
        return self.exchange.script.content_type or self.expected

    @property
    def answered(self) -> bool:
        return self.exchange.script.status == 200 and self.content_type == self.expected

    @property
    def under_the_rule(self) -> bool:
        """Whether this is a stream of events, of which the caller has not been shown too long a prelude.

        What is of another media type is one if it begins as one.
        """
        if not self.streaming or self.exchange.script.status != 200 or len(self.exchange.received) > self.cap:
            return False
        return self.content_type == self.expected or bool(self.exchange.received.strip())

    @property
    def cap(self) -> int:
        return self.policy.max_prelude if self.policy.hold == "prelude" else self.policy.max_hold

    @property
    def heard(self) -> Heard:
        return Heard(self.exchange.script, len(self.exchange.received), self.choices, self.policy.hold)

    def check_head(self, head: Head) -> None:
        assert self.head is None, "the head comes once"
        assert head.status == self.exchange.script.status
        self.head = head
        if self.under_the_rule:
            proven = self.heard.is_proven_by_end and self.exchange.ended
            assert self.heard.may_speak or proven, "until an attempt speaks, nothing of it is shown"
        elif self.answered and not self.streaming:
            assert self.exchange.ended
            assert json.loads(self.exchange.received), "a document is shown when it is whole"

    def check_bytes(self, data: bytes) -> None:
        assert data
        assert self.head is not None, "the head comes before the bytes"
        self.handed_on += data
        assert self.exchange.received.startswith(self.handed_on), "byte for byte, in order, of one attempt only"
        if self.under_the_rule and (start := self.heard.too_early) is not None and not self.heard.settled:
            assert b"[DONE]" not in self.handed_on[start:], "a truncated answer does not look whole"

    def check_promptness(self) -> None:
        """Once an attempt has spoken, every whole event is with the caller before anything else is waited for."""
        if self.under_the_rule and (self.head or self.heard.must_speak):
            assert len(self.handed_on) >= self.heard.whole

    def check_told(self, told: Notify) -> None:
        assert self.head is None, "nothing is sent again once an attempt has spoken"
        self.told = told
        if told.event.lost.held:
            self.tried_since = told.event.lost.after + told.event.lost.elapsed
        self.retries_in_a_row = self.retries_in_a_row + 1 if told.event.action == "retry" else 0
        assert self.retries_in_a_row <= self.policy.retries
        assert self.turn.report.replays <= self.replays
        assert told.event.attempt < told.event.of <= self.attempts + max(self.policy.retries, self.replays)

    def check_end(self, end: Fail | EndTurn) -> None:
        report, exchange = self.turn.report, self.exchange
        assert self.attempts <= (1 + self.replays) * (1 + self.policy.retries)
        assert [attempt.number for attempt in report.attempts] == list(range(1, len(report.attempts) + 1))
        assert len(report.attempts) - self.attempts in ((0, 1) if self.left else (0,))
        assert all(attempt.failure for attempt in report.attempts[:-1])
        assert all(attempt.elapsed >= 0 for attempt in report.attempts)
        assert report.lost == len(report.attempts) - 1
        assert not any(attempt.held and self.policy.hold == "prelude" for attempt in report.attempts)
        if isinstance(end, Fail):
            assert end.error.report == report
            assert exchange.received.startswith(end.error.held)
            assert bool(end.error.held) is report.attempts[-1].held
            if self.head:
                assert not end.error.held, "what was handed on is not handed on again"
                assert isinstance(end.error, StreamCut)
                assert not (self.under_the_rule and self.heard.settled), "what has settled cannot be cut"
        elif not self.left:
            assert self.head is not None
            assert self.handed_on == exchange.received
            if self.under_the_rule and not self.heard.settled:
                assert self.heard.is_proven_by_end, "an answer that ends has said so"
                assert exchange.ended
                assert not exchange.script.loss


@settings(max_examples=1200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    plan=st.lists(scripts(), min_size=1, max_size=4),
    retries=st.integers(0, 2),
    replays=st.integers(0, 2),
    give_up_after=st.sampled_from([600.0, 600.0, 600.0, 40.0, 0.0]),
    streaming=rarely(st.just(False), True),
    choices=st.sampled_from([1, 1, 2]),
    leaves_at=rarely(st.integers(0, 20), -1),
    hold=st.sampled_from(HOLDS),
    max_hold=st.sampled_from([MAX_PRELUDE, 100_000]),
)
def test_the_rule(
    plan: list[Script],
    retries: int,
    replays: int,
    give_up_after: float,
    streaming: bool,
    choices: int,
    leaves_at: int,
    hold: Hold,
    max_hold: int,
) -> None:
    policy = Policy(
        retries=retries,
        replays=replays,
        give_up_after=give_up_after,
        max_prelude=MAX_PRELUDE,
        max_event=MAX_EVENT,
        hold=hold,
        max_hold=max_hold,
        first_output_timeout=300.0,
    )
    driver = Driver(plan, policy, streaming=streaming, choices=choices, leaves_at=leaves_at)
    end = driver.run()
    driver.check_end(end)
    error = type(end.error).__name__ if isinstance(end, Fail) else "left" if driver.left else "finished"
    event(f"{error}, {'spoken' if driver.head else 'silent'}")
    event(f"{driver.attempts} attempts")


@given(st.lists(SECONDS))
def test_a_server_that_only_ever_cuts_is_given_up(waits: list[float]) -> None:
    script = Script(None, 200, {}, "", [], b"", Failure.RESET, b"\n", False, [], [*waits, 1.0])
    driver = Driver([script], Policy(), streaming=True, choices=1, leaves_at=-1)
    end = driver.run()
    driver.check_end(end)
    assert isinstance(end, Fail)
    assert isinstance(end.error, StreamCut)
    assert driver.attempts <= 4
