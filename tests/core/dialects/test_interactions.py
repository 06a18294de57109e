"""The dialect of Gemini's Interactions API, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.corpus import Recording, recordings
from core.dialects.replaying import CUTS, Cutter, attempted, blocks
from unbroken.core.answer import Answer
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects import recognise
from unbroken.core.dialects.interactions import INTERACTIONS
from unbroken.core.dialects.interactions.decode import InteractionsDecoder
from unbroken.core.dialects.interactions.rule import InteractionsReader
from unbroken.core.events import Failed, Finish, Reasoning, Signature, Text, ToolCallArguments, ToolCallStart, Usage
from unbroken.core.events import UsageReport as Counted
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.core.sse import Event

URL = "https://api.example.com/v1beta/interactions"
STREAMS = {recording.name: recording for recording in recordings("interactions")}


def event(kind: str, **fields: Any) -> Event:
    return Event(json.dumps({**fields, "event_type": kind}).encode(), kind)


def start(step: Any, index: int = 0) -> Event:
    return event("step.start", index=index, step=step)


def delta(kind: str, index: int = 0, **fields: Any) -> Event:
    return event("step.delta", index=index, delta={"type": kind, **fields})


def stop(index: int = 0) -> Event:
    return event("step.stop", index=index)


def ended(status: str | None = "completed", **fields: Any) -> Event:
    return event("interaction.completed", interaction={"id": "v1_x", "status": status, **fields})


def recognised(body: dict[str, Any], url: str = URL) -> Call:
    call = recognise(Request("POST", url, body=json.dumps(body).encode()))
    assert call is not None
    assert call.dialect is INTERACTIONS
    return call


def reading() -> InteractionsReader:
    return InteractionsReader(Generation(streaming=True))


def said(*events: Event) -> list[Any]:
    decoder = InteractionsDecoder()
    return [typed for one in events for typed in decoder.decode(one)]


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1beta/interactions",
            "/v1beta/interactions/",
            "/v1beta/interactions?key=secret",
            "/v1/interactions",
            "/v1beta1/projects/p/locations/global/interactions",
            "/proxy/google/v1beta/interactions",
        ],
    )
    def test_an_interaction(self, path: str) -> None:
        call = recognised({"model": "m", "input": "Hi", "stream": True}, "https://host" + path)
        assert (call.streaming, call.generation.choices, call.generation.acts) == (True, 1, False)
        assert not recognised({"model": "m", "input": "Hi"}, "https://host" + path).streaming

    def test_one_that_goes_on_from_a_token_has_no_input(self) -> None:
        assert recognised({"model": "m", "continuation_token": "x", "previous_interaction_id": "v1_x", "stream": True})

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/v1beta/interactions/v1_x?stream=true&last_event_id=e", b""),
            ("DELETE", "/v1beta/interactions/v1_x", b""),
            ("POST", "/v1beta/interactions/v1_x/cancel", b'{"model": "m"}'),
            ("POST", "/v1beta/interactions/v1_x", b'{"model": "m"}'),
            ("POST", "/v1beta/agents", b'{"model": "m"}'),
            ("POST", "/v1beta/interactions", b"{}"),
            ("POST", "/v1beta/interactions", b'{"type": 1, "data": {}}'),
            ("POST", "/v1beta/interactions", b"[]"),
            ("POST", "/v1beta/interactions", b"no"),
        ],
    )
    def test_nothing_else(self, method: str, path: str, body: bytes) -> None:
        assert recognise(Request(method, "https://host" + path, body=body)) is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"background": True},
            {"agent": "deep-research-preview-04-2026"},
            {"agent_config": {"type": "dynamic"}},
            {"environment": "remote"},
            {"webhook_config": {"uris": ["https://example.org"]}},
            {"tools": [{"type": "code_execution"}]},
            {"tools": [{"type": "google_search"}, {"type": "mcp_server", "url": "https://example.org"}]},
            {"tools": [{"type": "a_new_tool"}]},
            {"tools": [{}]},
            {"tools": ["function"]},
            {"tools": {"type": "function"}},
        ],
        ids=str,
    )
    def test_what_acts_on_the_world(self, fields: dict[str, Any]) -> None:
        assert recognised({"model": "m", "input": "Hi", **fields}).generation.acts

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [{"type": "function", "name": "code_execution"}, {"type": "computer_use"}]},
            {"tools": [{"type": "google_search"}, {"type": "google_maps"}, {"type": "url_context"}]},
            {"tools": [{"type": "file_search"}, {"type": "retrieval"}, {"type": "tool_search"}]},
            {"tools": []},
            {"tools": None, "background": False, "environment": None},
            {"store": True, "previous_interaction_id": "v1_x"},
        ],
        ids=str,
    )
    def test_what_does_not(self, fields: dict[str, Any]) -> None:
        assert not recognised({"model": "m", "input": "Hi", **fields}).generation.acts


class TestBuilding:
    def test_messages_become_steps(self) -> None:
        call = {"type": "function_call", "id": "1", "name": "f", "arguments": {}}
        contents = {"role": "user", "content": [{"type": "text", "text": "Look."}]}
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            call,
            contents,
        ]
        tool = {"type": "function", "name": "f"}
        assert INTERACTIONS.body("m", messages, [tool], True) == {
            "model": "m",
            "input": [
                {"type": "user_input", "content": [{"type": "text", "text": "Hi"}]},
                {"type": "model_output", "content": [{"type": "text", "text": "Hello."}]},
                call,
                contents,
            ],
            "stream": True,
            "system_instruction": "Be brief.",
            "tools": [tool],
        }

    def test_without_tools_or_a_system_message(self) -> None:
        assert set(INTERACTIONS.body("m", [{"role": "user", "content": "Hi"}], [], True)) == {
            "model",
            "input",
            "stream",
        }


class TestMeanings:
    @pytest.mark.parametrize(
        "silent",
        [
            Event(b""),
            event("interaction.created", interaction={"id": "v1_x", "status": "in_progress"}),
            event("interaction.created", interaction={"id": "v1_x", "status": "queued", "steps": []}),
            event("interaction.start", interaction={"id": "v1_x"}),
            event("interaction.status_update", interaction_id="v1_x", status="in_progress"),
            event("interaction.status_update", interaction_id="v1_x", status="queued"),
            event("interaction.status_update", interaction_id="v1_x", status="a_new_one"),
            event("interaction.status_update", interaction_id="v1_x", status="failed"),
            event("interaction.in_progress", interaction_id="v1_x"),
            start({"type": "thought"}),
            start({"type": "thought", "signature": "", "summary": [{"type": "text", "text": ""}]}),
            start({"type": "model_output"}),
            start({"type": "model_output", "content": [{"type": "text", "text": ""}]}),
            start({"type": "user_input", "content": [{"type": "text", "text": "Hi"}]}),
            event("content.start", index=0, content={"type": "text", "text": ""}),
            delta("text", text=""),
            delta("thought_signature", signature=""),
            delta("thought_summary", content={"type": "text", "text": ""}),
            delta("arguments_delta", arguments=""),
            event("step.delta", index=0, delta={}),
            stop(),
            event("step.stop", index=0, usage={"total_tokens": 3}),
            event("error"),
            event("error", error={}, event_id="e"),
            event("error", error={"code": "", "message": None}),
            Event(b"", "error"),
        ],
        ids=lambda silent: silent.text,
    )
    def test_silent(self, silent: Event) -> None:
        assert reading().read(silent) == Signal.SILENT
        assert said(silent) == []

    @pytest.mark.parametrize(
        "output",
        [
            event("interaction.created", interaction={"steps": [{"type": "model_output", "content": [{"text": "a"}]}]}),
            start({"type": "function_call", "id": "1", "name": "f", "arguments": {}}),
            start({"type": "mcp_server_tool_call", "id": "1"}),
            start({"type": "a_new_step"}),
            start("text"),
            event("content.start", index=0, content={"type": "function_call"}),
            delta("text", text=" "),
            delta("text", text="", annotations=[{"type": "url_citation", "url": "x"}]),
            delta("arguments_delta", arguments="{"),
            delta("audio", data="x"),
            delta("a_new_delta", of="x"),
            event("step.delta", index=0, delta="text"),
            event("a.new_event"),
            Event(b"[]"),
            Event(b"7"),
        ],
        ids=lambda output: output.text,
    )
    def test_output(self, output: Event) -> None:
        assert reading().read(output) == Signal.OUTPUT

    @pytest.mark.parametrize(
        "status", ["completed", "requires_action", "incomplete", "budget_exceeded", "in_progress", "x"]
    )
    def test_any_status_ends_it(self, status: str) -> None:
        reader = reading()
        assert reader.read(ended(status)) == Signal.SETTLES | Signal.ENDS
        assert reader.finish_reason == status
        assert said(ended(status)) == [Finish(status)]

    def test_without_a_status_it_is_completed(self) -> None:
        assert said(ended(None)) == said(event("interaction.completed")) == [Finish("completed")]

    def test_a_name_tells_what_the_data_do_not(self) -> None:
        flat = Event(
            b'{"id": "v1_x", "status": "completed", "usage": {"total_output_tokens": 3}}', "interaction.complete"
        )
        assert reading().read(flat) == Signal.SETTLES | Signal.ENDS
        assert said(flat) == [Counted(Usage(output_tokens=3)), Finish("completed")]

    def test_an_error_by_its_name_alone(self) -> None:
        told = Event(b"Internal error", "error")
        assert reading().read(told) == Signal.TRANSIENT_ERROR
        assert said(told) == [Failed("Internal error", transient=True)]

    @pytest.mark.parametrize(
        ("error", "transient"),
        [
            ({"code": "gateway_timeout", "message": "m"}, True),
            ({"code": "service_unavailable", "message": "m"}, True),
            ({"code": "too_many_requests", "message": "m"}, True),
            ({"code": "resource_exhausted", "message": "m"}, True),
            ({"code": "internal", "message": "m"}, True),
            ({"code": "deadline_exceeded", "message": "m"}, True),
            ({"code": "invalid_request", "message": "m"}, False),
            ({"code": "not_found", "message": "m"}, False),
            ({"message": "m"}, False),
            ({"code": 503, "message": "m", "status": "UNAVAILABLE"}, True),
        ],
        ids=str,
    )
    def test_which_errors_may_pass(self, error: dict[str, Any], transient: bool) -> None:
        signal = Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        assert reading().read(event("error", error=error)) == signal
        [failed] = said(event("error", error=error))
        assert (failed.message, failed.transient) == ("m", transient)

    def test_a_key_in_an_error_is_not_shown(self) -> None:
        [failed] = said(event("error", error={"code": "x", "message": "Consumer 'api_key:AIzaSecret' was suspended."}))
        assert failed.message == "Consumer 'api_key:...' was suspended."


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_an_error_outside_of_events_is_handed_on_as_an_error(cut: Cutter) -> None:
    recording = STREAMS["google-error-outside-of-events"]
    attempt, given = attempted(recording.call(INTERACTIONS, URL), cut(recording))
    assert (attempt.failure, attempt.noted) == (None, Failure.TRANSIENT_ERROR)
    assert given == recording.body


@pytest.mark.parametrize("recording", [one for one in STREAMS.values() if one.expect["complete"]], ids=str)
def test_a_clean_end_before_a_status_is_a_cut(recording: Recording) -> None:
    """After every event: whatever steps are closed."""
    came = b""
    for block, label in blocks(recording):
        if "settles" in label:
            return
        came += block
        attempt, _ = attempted(recording.call(INTERACTIONS, URL), [came])
        assert attempt.failure is Failure.UNFINISHED


class TestTools:
    def test_each_of_two_must_end(self) -> None:
        reader = reading()
        for step, runs in [
            ({"type": "google_search_call", "id": "a"}, True),
            ({"type": "url_context_call", "id": "b"}, True),
            ({"type": "google_search_result", "call_id": "a"}, True),
            ({"type": "url_context_result", "call_id": "b"}, False),
            ({"type": "function_call", "id": "c"}, False),
        ]:
            reader.read(start(step))
            assert reader.runs_tool is runs, step


class TestDecoding:
    def test_a_call_that_is_named_late(self) -> None:
        events = said(
            start({"type": "function_call"}),
            delta("function_call", id="1", name="f"),
            delta("function_call", arguments={"a": 1}),
            stop(),
        )
        assert events == [ToolCallStart(0, "1", "f"), ToolCallArguments(0, '{"a":1}')]

    def test_arguments_of_a_call_without_a_name_have_a_start_all_the_same(self) -> None:
        events = said(start({"type": "function_call"}), delta("arguments_delta", arguments="{}"))
        assert events == [ToolCallStart(0, "", ""), ToolCallArguments(0, "{}")]

    def test_deltas_of_a_step_that_nobody_started_are_output(self) -> None:
        assert said(delta("text", 3, text="Hi"), delta("thought_signature", 4, signature="s")) == [
            Text("Hi"),
            Signature("s"),
        ]

    def test_a_step_at_the_index_of_another_is_another(self) -> None:
        decoder = InteractionsDecoder()
        answer = Answer(INTERACTIONS, decoder)
        for one in (start({"type": "model_output"}), delta("text", text="a"), stop()) * 2:
            for typed in decoder.decode(one):
                answer.add(typed)
        assert [step["content"][0]["text"] for step in answer.messages] == ["a", "a"]

    def test_steps_in_the_last_event_count_if_none_came_before(self) -> None:
        steps = [{"type": "model_output", "content": [{"type": "text", "text": "Hi"}]}]
        assert said(ended(steps=steps)) == [Text("Hi"), Finish("completed")]
        assert said(delta("text", text="Hi"), ended(steps=steps)) == [Text("Hi"), Finish("completed")]

    def test_usage_beside_a_delta(self) -> None:
        beside = event(
            "step.delta",
            index=0,
            delta={"type": "text", "text": "Hi"},
            metadata={"total_usage": {"total_input_tokens": 1, "total_tool_use_tokens": 2, "total_output_tokens": 3}},
        )
        assert said(beside) == [Text("Hi"), Counted(Usage(input_tokens=3, output_tokens=3))]

    def test_the_error_of_a_failed_interaction_comes_behind_its_usage(self) -> None:
        events = said(
            ended("failed", usage={"total_output_tokens": 3}, errors=[{"code": "internal", "message": "No."}])
        )
        assert events == [Counted(Usage(output_tokens=3)), Failed("No.", "internal", transient=True)]


class TestWhole:
    @staticmethod
    def decoded(**fields: Any) -> list[Any]:
        return list(InteractionsDecoder().decode_whole(json.dumps(fields).encode()))

    def test_steps(self) -> None:
        assert self.decoded(
            id="v1_x",
            object="interaction",
            status="requires_action",
            steps=[
                {"type": "user_input", "content": [{"type": "text", "text": "Hi"}]},
                {"type": "thought", "signature": "s", "summary": [{"type": "text", "text": "Hm."}]},
                {"type": "model_output", "content": [{"type": "text", "text": "Hello"}]},
                {"type": "function_call", "id": "1", "name": "f", "arguments": {"a": 1}},
            ],
            usage={"total_input_tokens": 1, "total_output_tokens": 2, "total_thought_tokens": 3},
        ) == [
            Reasoning("Hm."),
            Signature("s"),
            Text("Hello"),
            ToolCallStart(0, "1", "f"),
            ToolCallArguments(0, '{"a":1}'),
            Counted(Usage(input_tokens=1, output_tokens=5, reasoning_tokens=3)),
            Finish("requires_action"),
        ]

    def test_outputs_of_before_may_2026(self) -> None:
        assert self.decoded(id="v1_x", status="completed", outputs=[{"type": "text", "text": "Hi"}]) == [
            Text("Hi"),
            Finish("completed"),
        ]

    def test_one_that_runs_in_the_background(self) -> None:
        assert self.decoded(id="v1_x", object="interaction", status="in_progress") == [Finish("in_progress")]

    def test_one_that_failed(self) -> None:
        [failed] = self.decoded(object="interaction", status="failed", errors=[{"message": "No.", "code": "internal"}])
        assert failed == Failed("No.", "internal", transient=True)
        error = INTERACTIONS.error_in(json.dumps({"object": "interaction", "status": "failed", "steps": []}).encode())
        assert error == Failed("the interaction is failed", "failed")

    def test_an_error(self) -> None:
        assert self.decoded(error={"message": "No.", "code": "not_found"}) == [Failed("No.", "not_found")]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"no", b'{"choices": []}'])
    def test_nothing_else(self, body: bytes) -> None:
        assert InteractionsDecoder().decode_whole(body) == ()
