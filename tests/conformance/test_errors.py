"""What goes wrong inside the stream: errors of the provider, and bytes that break the format."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.expectations import ANSWER, fails, has_ended, is_cut, is_handed_on, is_replayed, is_whole
from conformance.faces import POLICY, Face
from conformance.fixtures import Setting
from unbroken.core.events import Failed
from unbroken.core.failures import Phase
from unbroken.errors import MalformedStream, ProviderError, StreamCut
from unbroken.lab import Fault, ScriptedAnswer

TRANSIENT = [
    {"type": "server_error"},
    {"type": "overloaded_error", "message": "Overloaded"},
    {"type": "rate_limit_error", "code": "rate_limit_exceeded"},
    {"code": 503, "type": ""},
    {"code": 429, "type": ""},
]
PERMANENT = [
    {"type": "invalid_request_error"},
    {"type": "insufficient_quota", "code": "insufficient_quota"},
    {"code": 400, "type": ""},
    {"type": "content_policy_violation"},
]


@pytest.fixture
def plain(settings) -> Setting:
    """One transport: events are the same over all of them."""
    return settings("http1")


def error_event(at: str, **error: object) -> Fault:
    return Fault("error_event", at, error=error)


class TestAnErrorOfTheProvider:
    @pytest.mark.parametrize("error", TRANSIENT, ids=str)
    def test_a_transient_one_before_output_is_replayed_after_a_wait(
        self, face: Face, plain: Setting, error: dict[str, object]
    ) -> None:
        upstream = plain.serve(error_event("after_role", **error))
        outcome = face.run(plain.ask(upstream))
        is_replayed(outcome, upstream, codes={"transient_error"})
        assert outcome.told[0].delay > 0

    @pytest.mark.parametrize("at", ["after_headers", "after_comments", "after_role"])
    def test_a_transient_one_over_every_transport(self, face: Face, setting: Setting, at: str) -> None:
        upstream = setting.serve(error_event(at))
        is_replayed(face.run(setting.ask(upstream)), upstream, codes={"transient_error"})

    @pytest.mark.parametrize("error", PERMANENT, ids=str)
    def test_a_permanent_one_before_output_is_handed_on_as_it_came(
        self, face: Face, plain: Setting, error: dict[str, object]
    ) -> None:
        upstream = plain.serve(error_event("after_role", **error))
        outcome = face.run(plain.ask(upstream))
        is_handed_on(outcome, upstream, status=200)
        if outcome.is_typed:
            assert isinstance(outcome.error, ProviderError)
            assert outcome.error.phase is Phase.PRELUDE
            assert not outcome.error.retryable

    def test_a_transient_one_is_handed_on_when_the_replays_are_used_up(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(*[error_event("after_role")] * 9)
        outcome = face.run(plain.ask(upstream))
        is_handed_on(outcome, upstream, status=200, requests=4)
        if outcome.is_typed:
            assert isinstance(outcome.error, ProviderError)
            assert outcome.error.retryable

    @pytest.mark.parametrize("error", [TRANSIENT[0], PERMANENT[0]], ids=["transient", "permanent"])
    @pytest.mark.parametrize("at", ["after_reasoning", "after_token"])
    def test_after_output_it_is_handed_on_as_it_came(
        self, face: Face, setting: Setting, at: str, error: dict[str, object]
    ) -> None:
        upstream = setting.serve(error_event(at, **error))
        outcome = face.run(setting.ask(upstream))
        is_handed_on(outcome, upstream, status=200)
        if outcome.is_typed:
            assert isinstance(outcome.error, ProviderError)
            assert outcome.error.phase is Phase.OUTPUT
            assert outcome.error.kind == error["type"]
            assert outcome.text == ("Hello" if at == "after_token" else "")

    def test_after_the_answer_has_settled_it_takes_nothing_away(self, face: Face, setting: Setting) -> None:
        upstream = setting.serve(error_event("after_finish"))
        outcome = face.run(setting.ask(upstream))
        has_ended(outcome, upstream)
        if outcome.events is not None:
            assert isinstance(outcome.events[-1], Failed)


class TestAnEventThatBreaksTheFormat:
    def test_before_output_it_is_an_error_and_not_replayed(self, face: Face, setting: Setting) -> None:
        upstream = setting.serve(Fault("malformed", "after_role"))
        fails(face.run(setting.ask(upstream)), upstream, MalformedStream, requests=1)

    @pytest.mark.parametrize("at", ["after_reasoning", "after_token"])
    def test_after_output_the_bytes_go_through_and_the_client_raises(
        self, face: Face, setting: Setting, at: str
    ) -> None:
        upstream = setting.serve(Fault("malformed", at))
        outcome = face.run(setting.ask(upstream))
        assert len(upstream.requests) == 1
        if outcome.is_typed:
            assert isinstance(outcome.error, MalformedStream)
            assert outcome.text == ("Hello" if at == "after_token" else "")
        else:
            is_whole(outcome, upstream, requests=1)


class TestAnEventOverTheCap:
    POLICY = dataclasses.replace(POLICY, max_event=2048)
    HUGE = b'data: {"choices": [{"delta": {"content": "' + b"x" * 4096 + b'"}}]}\n\n'

    @pytest.mark.parametrize("body", [HUGE, b"data: " + b"x" * 4096], ids=["whole", "unfinished"])
    def test_before_output_it_is_an_error_and_not_replayed(self, face: Face, plain: Setting, body: bytes) -> None:
        upstream = plain.serve(Fault("raw", "after_role", body=body))
        outcome = face.run(plain.ask(upstream, policy=self.POLICY))
        fails(outcome, upstream, MalformedStream, requests=1)

    def test_after_output_the_bytes_go_through_and_the_client_raises(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("raw", "after_token", body=self.HUGE))
        outcome = face.run(plain.ask(upstream, policy=self.POLICY))
        assert len(upstream.requests) == 1
        if outcome.is_typed:
            assert isinstance(outcome.error, MalformedStream)
            assert outcome.text == "Hello"
        else:
            is_whole(outcome, upstream, requests=1)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices": [{"delta": {"audio": {"data": "UklGRg=="}}}]}\n\n',
        b'data: {"choices": [], "something": "unheard of"}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "call_1"}]}}]}\n\n',
    ],
    ids=["audio", "unknown", "tool call"],
)
def test_what_may_be_output_counts_as_output(face: Face, plain: Setting, body: bytes) -> None:
    stream = body + b"data: {"  # and then it is cut
    page = Fault("status", "before_headers", status=200, headers={"content-type": "text/event-stream"}, body=stream)
    upstream = plain.serve(page)
    is_cut(face.run(plain.ask(upstream)), upstream, codes={"unfinished"}, text="")


@pytest.mark.parametrize(
    "body",
    [
        b": a comment\n\n",
        b"event: ping\ndata:\n\n",
        b'data: {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}\n\n',
        b'data: {"choices": [{"delta": {"role": "assistant", "content": null, "tool_calls": []}}]}\n\n',
        b'data: {"choices": [], "usage": {"prompt_tokens": 7}}\n\n',
        b"\n\n\n\n",
    ],
    ids=["comment", "ping", "prompt filter", "empty delta", "usage", "blank lines"],
)
def test_what_the_model_did_not_produce_is_held_back(face: Face, plain: Setting, body: bytes) -> None:
    stream = body + b"data: {"  # and then it is cut
    page = Fault("status", "before_headers", status=200, headers={"content-type": "text/event-stream"}, body=stream)
    upstream = plain.serve(page)
    is_replayed(face.run(plain.ask(upstream)), upstream, codes={"unfinished"})


def test_a_prelude_over_its_cap_counts_as_output(face: Face, plain: Setting) -> None:
    body = b": keep-alive\n\n" * 200
    stream = Fault("status", "before_headers", status=200, headers={"content-type": "text/event-stream"}, body=body)
    upstream = plain.serve(stream)
    outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, max_prelude=1024)))
    is_cut(outcome, upstream, codes={"unfinished"}, text="")


class TestATerminatorWithoutAnEnding:
    """``[DONE]`` says only that the server has stopped; not that the answer is whole."""

    def test_before_output_it_is_replayed(self, face: Face, setting: Setting) -> None:
        upstream = setting.serve(Fault("raw", "after_role", body=b"data: [DONE]\n\n"))
        is_replayed(face.run(setting.ask(upstream)), upstream, codes={"unfinished"})

    def test_after_output_it_is_a_cut_and_is_not_handed_on(self, face: Face, setting: Setting) -> None:
        upstream = setting.serve(Fault("raw", "after_token", body=b"data: [DONE]\n\n"))
        outcome = face.run(setting.ask(upstream))
        is_cut(outcome, upstream, codes={"unfinished"})
        assert b"[DONE]" not in (outcome.data or b"")


@pytest.mark.parametrize("reason", ["stop", "content_filter", "length"])
def test_an_answer_without_output_is_an_answer(face: Face, setting: Setting, reason: str) -> None:
    upstream = setting.serve(answer=ScriptedAnswer(text=(), finish_reason=reason))
    outcome = face.run(setting.ask(upstream))
    assert outcome.error is None
    assert outcome.report.lost == 0
    assert outcome.data in (None, upstream.requests[0].sent)


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
class TestAFinishReasonThatReportsAFailure:
    def test_before_output_it_is_replayed(self, face: Face, plain: Setting, reason: str) -> None:
        body = f'data: {{"choices": [{{"index": 0, "delta": {{}}, "finish_reason": "{reason}"}}]}}\n\n'.encode()
        upstream = plain.serve(Fault("raw", "after_role", body=body))
        is_replayed(face.run(plain.ask(upstream)), upstream, codes={"transient_error"})

    def test_after_output_it_is_handed_on_and_is_no_ending_of_an_answer(
        self, face: Face, plain: Setting, reason: str
    ) -> None:
        upstream = plain.serve(answer=ScriptedAnswer(finish_reason=reason))
        outcome = face.run(plain.ask(upstream))
        is_handed_on(outcome, upstream, status=200)
        if outcome.is_typed:
            assert isinstance(outcome.error, ProviderError)
            assert outcome.error.retryable
            assert outcome.text == ANSWER


def test_every_choice_must_finish(face: Face, plain: Setting) -> None:
    """With ``n`` choices asked for, one finish reason settles nothing."""

    def chunk(index: int, delta: str, reason: str) -> bytes:
        return f'data: {{"choices": [{{"index": {index}, "delta": {delta}, "finish_reason": {reason}}}]}}\n\n'.encode()

    one = chunk(0, '{"content": "Hello"}', "null") + chunk(1, '{"content": "Bonjour"}', "null")
    one += chunk(0, "{}", '"stop"')
    headers = {"content-type": "text/event-stream"}
    upstream = plain.serve(Fault("status", "before_headers", status=200, headers=headers, body=one))
    is_cut(face.run(plain.ask(upstream, options={"n": 2})), upstream, codes={"unfinished"})

    both = one + chunk(1, "{}", '"stop"')
    upstream = plain.serve(Fault("status", "before_headers", status=200, headers=headers, body=both))
    outcome = face.run(plain.ask(upstream, options={"n": 2}))
    assert outcome.error is None
    assert outcome.report.lost == 0


def test_a_cut_with_replays_used_up_tells_how_often_it_was_tried(face: Face, setting: Setting) -> None:
    upstream = setting.serve(*[Fault("fin", "after_role")] * 9)
    outcome = face.run(setting.ask(upstream))
    fails(outcome, upstream, StreamCut, requests=4)
    assert "3 replays used up" in str(outcome.error)
    assert "4 attempts" in str(outcome.error)
    assert outcome.report.replays == 3
    assert outcome.report.possibly_billed == 4
