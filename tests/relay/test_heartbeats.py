"""When a client hears a heartbeat, to the second: the clock is virtual."""

from __future__ import annotations

import itertools

import anyio
import pytest
import trio

from relay.asked import ANTHROPIC, CHAT, COMPLETIONS, GEMINI, RESPONSES, Asked
from relay.staging import (
    ANSWER,
    BEAT,
    COMMENT,
    DONE,
    END,
    ENDING,
    JSON,
    OK,
    ROLE,
    SLOW_DOWN,
    STOP,
    TOKEN,
    Stage,
    at,
    head,
    in_virtual_time,
    lost,
    perform,
)
from unbroken.core.failures import Failure
from unbroken.core.policy import Policy
from unbroken.relay.heartbeats import MAX_TICK, Heartbeats
from unbroken.relay.recorder import Outcome
from unbroken.relay.turns import RelayedTurn


@pytest.fixture(params=[True, False], ids=["poured", "sent"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "pours", request.param)


def beats(stage: Stage) -> list[float]:
    """When heartbeats were sent."""
    heartbeat = stage.asked.dialect.heartbeat
    found = [when for when, piece in stage.client.sent if piece == heartbeat]
    assert len(found) == stage.record.heartbeats
    return found


def stops_reading(stage: Stage) -> None:
    stage.client.stop_reading()


def reads_on(stage: Stage) -> None:
    stage.client.read_on()


def leaves(stage: Stage) -> None:
    stage.client.leave()


class TestTheFirstOne:
    def test_comes_fifteen_seconds_after_the_headers(self) -> None:
        stage = perform([2.0, OK, 16.0, *ANSWER])
        assert stage.client.sent[:2] == [(17.0, BEAT), (18.0, ROLE + TOKEN)]

    def test_does_not_come_sooner(self) -> None:
        assert beats(perform([2.0, OK, 14.9, *ANSWER])) == []

    def test_never_comes_before_the_headers(self) -> None:
        stage = perform([100.0, OK, 1.0, *ANSWER])
        assert beats(stage) == []
        assert stage.client.value("x-unbroken-replays") == "0"

    def test_counts_from_the_headers_whatever_the_upstream_says_that_is_held_back(self) -> None:
        assert beats(perform([OK, *[5.0, COMMENT] * 7, ROLE, 5.0, *ANSWER])) == [15.0, 30.0]

    def test_counts_anew_with_each_attempt(self) -> None:
        stage = perform([OK, ROLE, 10.0, lost()], [5.0, OK, 20.0, *ANSWER])
        assert beats(stage) == [30.0]

    def test_waits_for_the_headers_of_the_next_attempt_too(self) -> None:
        stage = perform([OK, 14.0, lost()], [100.0, OK, 16.0, *ANSWER])
        assert beats(stage) == [129.0]

    @pytest.mark.parametrize("status", [429, 503])
    def test_never_comes_while_an_error_is_read(self, status: int) -> None:
        refusal = [head(status, retry_after="0"), 4.0, SLOW_DOWN, 0.5, END]
        stage = perform(refusal, [OK, *ANSWER], heartbeat=1.0)
        assert beats(stage) == []
        assert stage.told[0].lost.status == status


class TestWhileOutputIsHeld:
    HELD = Policy(hold="answer")

    def test_they_go_on(self) -> None:
        stage = perform([OK, ROLE, TOKEN, *[10.0, TOKEN] * 4, *ENDING], policy=self.HELD)
        assert beats(stage) == [15.0, 30.0]
        assert [piece for piece in stage.client.pieces if piece != BEAT] == [ROLE + 5 * TOKEN + STOP, DONE]
        assert stage.record.first_output == 0

    def test_they_go_on_through_a_replay(self) -> None:
        stage = perform([OK, TOKEN, 20.0, lost()], [OK, TOKEN, 20.0, *ANSWER], policy=self.HELD)
        assert beats(stage) == [15.0, 30.0]
        assert stage.told[0].lost.held
        assert stage.record.saved

    def test_without_one_a_cut_of_all_that_was_held_is_a_status(self) -> None:
        stage = perform([OK, TOKEN, 5.0, lost()], policy=Policy(hold="answer", replays=0))
        assert stage.client.status == 502
        assert stage.record.outcome is Outcome.LOST


class TestMoreOfThem:
    def test_come_again_and_again(self) -> None:
        assert beats(perform([OK, 100.0, *ANSWER])) == [15.0, 30.0, 45.0, 60.0, 75.0, 90.0]

    def test_come_between_events_too(self) -> None:
        stage = perform([OK, ROLE, TOKEN, 40.0, TOKEN, 10.0, TOKEN, 10.0, TOKEN, 20.0, *ENDING])
        assert beats(stage) == [15.0, 30.0, 75.0]

    def test_come_in_the_relays_own_rhythm_whatever_happens_upstream(self) -> None:
        """A cut, a backoff wait and a request without an answer are silence for the client."""
        stage = perform([OK, 20.0, lost()], [20.0, lost()], [20.0, OK, 20.0, *ANSWER])
        assert beats(stage) == [15.0, 30.0, 45.0, 60.0, 75.0]
        assert stage.record.outcome is Outcome.ANSWERED
        assert [piece for piece in stage.client.pieces if piece != BEAT] == [ROLE + TOKEN, STOP, DONE]

    def test_stop_with_the_turn(self) -> None:
        stage = perform([OK, *ANSWER], others=[at(60, lambda stage: None)])
        assert stage.ended == 0
        assert beats(stage) == []

    def test_stop_when_the_client_leaves(self) -> None:
        stage = perform([OK], others=[at(20, leaves), at(60, lambda stage: None)])
        assert stage.ended == 20
        assert beats(stage) == [15.0]

    @pytest.mark.parametrize("asked", [CHAT, RESPONSES, COMPLETIONS, ANTHROPIC], ids=str)
    def test_in_every_dialect_that_has_any(self, asked: Asked) -> None:
        stage = perform([OK], asked=asked, others=[at(50, leaves)])
        assert beats(stage) == [15.0, 30.0, 45.0]


class TestNone:
    def test_for_gemini(self) -> None:
        stage = perform([OK], asked=GEMINI, others=[at(50, leaves)])
        assert (stage.client.status, stage.client.sent) == (None, [])

    @pytest.mark.parametrize("early", [True, False])
    def test_where_no_stream_was_asked_for(self, early: bool) -> None:
        stage = perform([JSON, 50.0, b'{"choices": []}', END], streaming=False, early=early)
        assert stage.client.pieces == [b'{"choices": []}']

    def test_where_something_else_is_handed_on(self) -> None:
        stage = perform([head(200, "text/html"), b"<p>", 50.0, b"</p>", END])
        assert stage.client.body == b"<p></p>"

    @pytest.mark.parametrize("early", [True, False])
    def test_where_they_are_turned_off(self, early: bool) -> None:
        assert beats(perform([OK, 100.0, *ANSWER], heartbeat=0.0, early=early)) == []

    def test_in_half_a_large_event(self) -> None:
        large = b"data: " + b"x" * 100_000
        stage = perform([OK, ROLE, TOKEN, large, 40.0, b"\n\n", 20.0, *ENDING])
        assert beats(stage) == [55.0]
        assert large + b"\n\n" in stage.client.body.replace(BEAT, b"")


class TestEarlyOnes:
    def test_come_before_the_headers(self) -> None:
        stage = perform([40.0, OK, *ANSWER], early=True)
        assert beats(stage) == [15.0, 30.0]
        assert stage.record.outcome is Outcome.ANSWERED
        assert stage.client.value("x-unbroken-replays") is None

    def test_count_from_the_request_and_not_from_the_attempt(self) -> None:
        busy = [1.0, head(503, retry_after="10"), END]
        assert beats(perform(busy, busy, [OK, 10.0, *ANSWER], early=True)) == [15.0, 30.0]

    def test_none_for_gemini(self) -> None:
        stage = perform([], asked=GEMINI, early=True, others=[at(50, leaves)])
        assert stage.client.status is None

    def test_make_a_late_429_an_event(self) -> None:
        stage = perform([20.0, head(429, "application/json", retry_after="90"), SLOW_DOWN, END], early=True)
        assert stage.client.status == 200
        [error] = CHAT.errors(stage.client.body)
        assert (error.message, error.kind) == ("Slow down.", "rate_limit_exceeded")
        assert stage.raised
        assert stage.record.outcome is Outcome.REFUSED


class TestASlowReader:
    def test_gets_no_pile_of_them(self) -> None:
        def nothing_piles_up(stage: Stage) -> None:
            assert stage.client.waiting == 1

        others = [at(20, stops_reading), *[at(second, nothing_piles_up) for second in (31, 60, 299)], at(300, reads_on)]
        stage = perform([OK, 310.0, *ANSWER], others=others)
        assert beats(stage) == [15.0, 300.0]

    def test_gets_none_while_it_has_not_read_the_answer(self) -> None:
        stage = perform([OK, ROLE, TOKEN, 5.0, TOKEN, *ENDING], others=[at(1, stops_reading), at(100, reads_on)])
        assert beats(stage) == []
        assert stage.client.whole

    def test_does_not_keep_others_from_theirs(self) -> None:
        slow, quick = Stage([[OK]]), Stage([[OK]])

        async def main() -> None:
            live: dict[str, RelayedTurn] = {}
            for stage in (slow, quick):
                stage.set_up()
                live[str(id(stage))] = stage.turn
            async with (
                Heartbeats(live, 15.0, early=False, clock=trio.current_time),
                anyio.create_task_group() as tasks,
            ):
                for stage in (slow, quick):
                    tasks.start_soon(stage.turn.run)
                slow.client.stop_reading()
                await trio.sleep(50)
                slow.client.leave()
                quick.client.leave()

        in_virtual_time(main)
        assert beats(quick) == [15.0, 30.0, 45.0]
        assert slow.client.sent == []

    def test_ends_with_the_heartbeats(self) -> None:
        """Whoever stops the relay does not wait for a client that does not read."""

        async def main() -> None:
            stage = Stage([[OK]])
            stage.set_up()
            live = {stage.turn.id: stage.turn}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.turn.run)
                async with Heartbeats(live, 15.0, early=False, clock=trio.current_time):
                    stage.client.stop_reading()
                    await trio.sleep(20)
                    assert stage.client.waiting == 1
                assert (stage.client.waiting, trio.current_time()) == (0, 20)
                stage.client.leave()

        in_virtual_time(main)


class TestAClientThatIsGone:
    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the handler is closed")], ids=repr)
    def test_does_not_take_the_others_heartbeats_along(self, error: Exception) -> None:
        """A server may say so by an error (ASGI specification, "Disconnected client - send exception")."""
        gone, other = Stage([[OK]]), Stage([[OK]])

        async def main() -> None:
            live: dict[str, RelayedTurn] = {}
            for stage in (gone, other):
                stage.set_up()
                live[str(id(stage))] = stage.turn
            gone.client.fails = error
            async with (
                Heartbeats(live, 15.0, early=False, clock=trio.current_time),
                anyio.create_task_group() as tasks,
            ):
                for stage in (gone, other):
                    tasks.start_soon(stage.turn.run)
                await trio.sleep(50)
                gone.client.leave()
                other.client.leave()

        in_virtual_time(main)
        assert beats(other) == [15.0, 30.0, 45.0]


class TestPrecision:
    @pytest.mark.parametrize("interval", [0.2, 1.0, 7.3, 15.0, 290.0])
    def test_is_a_quarter_of_the_interval_and_a_second_at_most(self, interval: float) -> None:
        stage = perform([0.137, OK, 3 * interval, *ANSWER], heartbeat=interval)
        late = min(MAX_TICK, interval / 4)
        times = [0.137, *beats(stage)]
        assert len(times) > 2
        for before, after in itertools.pairwise(times):
            assert interval <= after - before + 1e-9
            assert after - before <= interval + late + 1e-9

    def test_a_budget_that_is_used_up_after_heartbeats_ends_them(self) -> None:
        policy = Policy(replays=0)
        stage = perform([OK, 20.0, lost(Failure.DEAD_PATH)], policy=policy, others=[at(60, lambda stage: None)])
        assert beats(stage) == [15.0]
        assert stage.ended == 20
