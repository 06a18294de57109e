"""How often, how soon, how long: the budget, the timeouts, and PING."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import threading
import time

import pytest

from conformance.expectations import LOST, fails, has_ended, is_cut, is_replayed, is_whole
from conformance.faces import DRIVERS, POLICY, Ask, Face
from conformance.fixtures import Setting
from ports import free_port
from unbroken.core.actions import RetryEvent
from unbroken.core.failures import Phase
from unbroken.drivers.synchronous import Driver
from unbroken.errors import FirstOutputTimeout, StreamCut, Unreachable
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from unbroken.wire.http import HttpWire


@pytest.fixture
def plain(settings) -> Setting:
    return settings("http1")


class TestTheFirstOutput:
    POLICY = dataclasses.replace(POLICY, first_output_timeout=0.25)

    @pytest.mark.parametrize("transport", ["http1", "http2"])
    @pytest.mark.parametrize("at", ["before_headers", "after_role"])
    def test_must_come_in_time(self, face: Face, settings, transport: str, at: str) -> None:
        setting: Setting = settings(transport)
        upstream = setting.serve(Fault("stall", at))
        outcome = face.run(setting.ask(upstream, policy=self.POLICY))
        fails(outcome, upstream, FirstOutputTimeout, requests=1)
        assert outcome.error is not None
        assert outcome.error.phase is (Phase.HEADERS if at == "before_headers" else Phase.PRELUDE)
        assert outcome.error.retryable

    def test_is_not_put_off_by_comments(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(answer=ScriptedAnswer(think=5, comments=100))
        outcome = face.run(plain.ask(upstream, policy=self.POLICY))
        fails(outcome, upstream, FirstOutputTimeout, requests=1)

    def test_is_not_put_off_by_ping(self, face: Face, settings) -> None:
        setting = settings("http2")
        upstream = setting.serve(Fault("stall", "after_role"))
        policy = dataclasses.replace(POLICY, first_output_timeout=1, ping_interval=0.05, ping_timeout=5)
        outcome = face.run(setting.ask(upstream, policy=policy))
        fails(outcome, upstream, FirstOutputTimeout, requests=1)
        assert upstream.pings > 1

    def test_ends_the_limit(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("pause", "after_reasoning", seconds=1.2))
        outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, first_output_timeout=1)))
        has_ended(outcome, upstream)


class TestTheIdleLimit:
    POLICY = dataclasses.replace(POLICY, idle_timeout=0.7)

    def test_is_put_off_by_comments(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(answer=ScriptedAnswer(think=1, comments=20))
        has_ended(face.run(plain.ask(upstream, policy=self.POLICY)), upstream)

    def test_is_put_off_by_ping(self, face: Face, settings) -> None:
        setting = settings("http2")
        upstream = setting.serve(answer=ScriptedAnswer(think=1, think_at="before_headers"))
        policy = dataclasses.replace(self.POLICY, ping_interval=0.05, ping_timeout=5)
        outcome = face.run(setting.ask(upstream, policy=policy))
        has_ended(outcome, upstream)
        assert outcome.report.attempts[0].route.pings_answered > 3
        assert upstream.pings > 3


def freeze_and_thaw(upstream: Upstream, path: CuttingProxy) -> None:
    """An outage, from the request until a second connection was tried."""
    assert upstream.wait_for(lambda: upstream.requests, timeout=5)
    path.freeze()
    assert path.wait_for(lambda: path.connections == 2, timeout=5)
    path.thaw()


class TestAnUnansweredPing:
    POLICY = dataclasses.replace(POLICY, ping_interval=0.05, ping_timeout=0.15, idle_timeout=0.7, revive=0.2)

    @pytest.mark.parametrize("at", ["before_headers", "after_role"])
    def test_before_output_is_replayed_on_a_second_connection(self, face: Face, settings, at: str) -> None:
        upstream = (setting := settings("http2")).serve(Fault("no_ping_ack", at))
        is_replayed(face.run(setting.ask(upstream, policy=self.POLICY)), upstream, codes={"dead_path"})
        assert upstream.connections == 2

    @pytest.mark.parametrize("at", ["before_headers", "after_role"])
    def test_of_a_path_that_comes_back_costs_nothing(self, face: Face, settings, at: str) -> None:
        setting = settings("http2")
        upstream = setting.serve(answer=ScriptedAnswer(think=1, think_at=at))
        with CuttingProxy(target=("127.0.0.1", upstream.port)) as path:
            ask = setting.ask(upstream, policy=dataclasses.replace(self.POLICY, idle_timeout=20, revive=20))
            ask = dataclasses.replace(ask, url=f"https://127.0.0.1:{path.port}/v1")
            outage = threading.Thread(target=freeze_and_thaw, args=(upstream, path))
            outage.start()
            outcome = face.run(ask)
            outage.join()
        is_whole(outcome, upstream, requests=1)

    def test_is_waited_out_after_output(self, face: Face, settings) -> None:
        """Nothing can be won any more by giving up before the idle timeout."""
        upstream = (setting := settings("http2")).serve(Fault("no_ping_ack", "after_token"))
        outcome = face.run(setting.ask(upstream, policy=self.POLICY))
        is_cut(outcome, upstream, codes={"idle_timeout"})
        assert outcome.report.attempts[0].elapsed >= 0.7


class TestTheBudget:
    @pytest.mark.parametrize("replays", [0, 1, 3])
    def test_so_many_replays_and_no_more(self, face: Face, plain: Setting, replays: int) -> None:
        upstream = plain.serve(*[Fault("fin", "after_headers")] * 9)
        outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, replays=replays)))
        fails(outcome, upstream, StreamCut, requests=replays + 1)
        assert outcome.error is not None
        assert outcome.error.phase is Phase.PRELUDE
        assert outcome.error.retryable

    def test_it_is_one_for_the_whole_turn_whatever_is_lost(self, face: Face, plain: Setting) -> None:
        lost = [Fault("fin", "before_headers"), Fault("error_event", "after_role"), Fault("clean_end", "after_role")]
        upstream = plain.serve(*lost, *lost)
        outcome = face.run(plain.ask(upstream))
        fails(outcome, upstream, StreamCut, requests=4)
        assert [attempt.failure for attempt in outcome.report.attempts[1:3]] == ["transient_error", "unfinished"]

    def test_refusals_do_not_use_up_replays(self, face: Face, plain: Setting) -> None:
        busy = Fault("status", "before_headers", status=503)
        upstream = plain.serve(busy, Fault("fin", "after_role"), busy, Fault("fin", "after_role"), busy)
        outcome = face.run(plain.ask(upstream))
        assert outcome.error is None
        assert (outcome.report.retries, outcome.report.replays) == (3, 2)
        assert len(upstream.requests) == 6

    def test_the_first_replay_goes_at_once_and_later_ones_wait(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(*[Fault("fin", "after_role")] * 3)
        outcome = face.run(plain.ask(upstream))
        delays = [told.delay for told in outcome.told]
        assert delays[0] == 0
        assert 0.005 <= delays[1] <= 0.01
        assert 0.01 <= delays[2] <= 0.02
        assert [(told.attempt, told.of) for told in outcome.told] == [(1, 4), (2, 4), (3, 4)]

    def test_no_attempt_starts_once_it_was_given_up(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("fin", "after_role", seconds=0.2), Fault("fin", "after_role", seconds=0.2))
        outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, give_up_after=0.1)))
        fails(outcome, upstream, StreamCut, requests=1)
        assert "gave up" in str(outcome.error)


class TestBeforeTheRequestIsSent:
    def test_a_refused_connection_is_tried_again_but_not_for_long(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(port=free_port())
        upstream.close()
        began = time.monotonic()
        outcome = face.run(plain.ask(upstream))
        fails(outcome, upstream, Unreachable, requests=0, attempts=len(outcome.report.attempts))
        assert time.monotonic() - began < 3
        assert outcome.error is not None
        assert outcome.error.retryable
        assert 3 <= len(outcome.report.attempts) <= 11
        for attempt in outcome.report.attempts:
            assert (attempt.phase, attempt.failure, attempt.billed) == (Phase.CONNECT, "connection_refused", "no")

    def test_a_server_that_comes_back_is_found(self, face: Face, plain: Setting) -> None:
        policy = dataclasses.replace(POLICY, backoff_initial=0.1, backoff_max=0.1, unreachable_for=60)
        port = free_port()

        def come_back(event: RetryEvent) -> None:
            if event.attempt == 3:
                plain.serve(port=port)

        url = f"http://127.0.0.1:{port}/v1"
        outcome = face.run(Ask(url=url, tls=plain.tls.client, policy=policy, when_told=come_back))
        assert outcome.error is None
        assert (outcome.report.retries, outcome.report.replays) == (3, 0)
        assert {told.action for told in outcome.told} == {"retry"}

    @pytest.mark.parametrize("at", ["connect", "handshake"])
    @pytest.mark.parametrize("kind", ["rst", "fin"])
    def test_a_connection_that_is_lost_is_tried_again(self, face: Face, settings, kind: str, at: str) -> None:
        """Over TLS that is certain: without it the request may have been read before the connection was lost."""
        for transport in ("http1-tls", "http2"):
            setting: Setting = settings(transport)
            upstream = setting.serve(Fault(kind, at))
            outcome = face.run(setting.ask(upstream))
            assert outcome.error is None
            assert len(upstream.requests) == 1
            assert (outcome.report.retries, outcome.report.replays) == (1, 0)
            lost = outcome.report.attempts[0]
            assert lost.failure in LOST
            assert (lost.phase, lost.billed) == (Phase.CONNECT, "no")

    def test_a_certificate_that_is_refused_is_an_error_at_once(self, face: Face, settings) -> None:
        setting = settings("http2")
        upstream = setting.serve()
        ask = dataclasses.replace(setting.ask(upstream), tls=ssl.create_default_context())
        outcome = face.run(ask)
        fails(outcome, upstream, Unreachable, requests=0, attempts=1)
        assert outcome.error is not None
        assert not outcome.error.retryable
        assert outcome.report.attempts[0].failure == "certificate"

    def test_a_connection_that_does_not_come_about_is_given_up(self, face: Face, settings) -> None:
        setting = settings("http2")
        upstream = setting.serve(*[Fault("stall", "handshake")] * 9)
        policy = dataclasses.replace(POLICY, connect_timeout=0.2, unreachable_for=0.1)
        outcome = face.run(setting.ask(upstream, policy=policy))
        fails(outcome, upstream, Unreachable, requests=0, attempts=len(outcome.report.attempts))
        assert {attempt.failure for attempt in outcome.report.attempts} == {"connect_timeout"}


class TestACallThatActs:
    """Server-side tools that act on the world must not act twice."""

    @pytest.fixture(params=DRIVERS, ids=str)
    def driver(self, request: pytest.FixtureRequest) -> Face:
        chosen: Face = request.param
        return chosen

    @pytest.mark.parametrize("at", ["before_headers", "after_headers", "after_role"])
    def test_is_not_replayed_once_it_was_sent(self, driver: Face, setting: Setting, at: str) -> None:
        upstream = setting.serve(Fault("fin", at))
        outcome = driver.run(setting.ask(upstream, acts=True))
        fails(outcome, upstream, StreamCut, requests=1)
        assert "acts on the world" in str(outcome.error)

    def test_is_sent_again_where_it_was_not_processed(self, driver: Face, settings) -> None:
        setting = settings("http2")
        upstream = setting.serve(
            Fault("rst", "handshake"),
            Fault("refused_stream", "before_headers"),
            Fault("status", "before_headers", status=429),
        )
        outcome = driver.run(setting.ask(upstream, acts=True))
        assert outcome.error is None
        assert (outcome.report.retries, outcome.report.replays) == (3, 0)

    def test_is_replayed_if_the_policy_says_so(self, driver: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("fin", "after_role"))
        policy = dataclasses.replace(POLICY, replay_side_effects=True)
        is_replayed(driver.run(plain.ask(upstream, acts=True, policy=policy)), upstream)


class TestTheTimeWithoutOutput:
    POLICY = dataclasses.replace(POLICY, stall_output_timeout=0.5)

    def test_is_not_fed_by_comments(self, face: Face, plain: Setting) -> None:
        """Though they feed every other limit."""
        raw = Fault("raw", "after_token", seconds=0.2, body=b": still here\n\n")
        upstream = plain.serve(raw, answer=ScriptedAnswer(text=["Hello", " from the lab."], gap=30))
        outcome = face.run(plain.ask(upstream, policy=self.POLICY))
        is_cut(outcome, upstream, codes={"stalled_output"})

    def test_is_no_limit_while_output_comes(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(answer=ScriptedAnswer(text=[*"Hello from the lab."], gap=0.05))
        has_ended(face.run(plain.ask(upstream, policy=self.POLICY)), upstream)


@pytest.mark.parametrize("transport", ["http1", "http2"])
def test_time_that_the_caller_takes_is_no_time_without_output(settings, transport: str) -> None:
    setting: Setting = settings(transport)
    upstream = setting.serve(answer=ScriptedAnswer(text=[*"Hello from the lab."], gap=0.02))
    ask = setting.ask(upstream, policy=dataclasses.replace(POLICY, stall_output_timeout=0.3))
    wire = HttpWire(verify=ask.tls, environ={})
    with contextlib.closing(wire), Driver(wire, *ask.request(), ask.policy) as driver:
        driver.open()
        data = next(driver)
        time.sleep(0.6)  # the caller's own work
        data += b"".join(driver)
    assert data == upstream.requests[0].sent
