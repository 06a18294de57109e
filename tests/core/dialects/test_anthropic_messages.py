"""Anthropic's dialect, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus import recordings
from core.dialects.replaying import CUTS, Cutter, attempted
from unbroken.core.answer import Answer
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.anthropic_messages.decode import MessagesDecoder
from unbroken.core.dialects.anthropic_messages.rule import MessagesReader
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Signature,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Request
from unbroken.core.sse import Event, encode
from unbroken.errors import MalformedEvent

URL = "https://api.example.com/v1/messages"
STREAMS = recordings("anthropic_messages")


def event(kind: str, **fields: Any) -> Event:
    return Event(json.dumps({"type": kind, **fields}).encode(), kind)


def started(**block: Any) -> Event:
    return event("content_block_start", index=0, content_block=block)


def delta(**fields: Any) -> Event:
    return event("content_block_delta", index=0, delta=fields)


def ended(reason: str | None = "end_turn", **fields: Any) -> Event:
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None, **fields})


def recognised(body: dict[str, Any], url: str = URL) -> Call:
    call = ANTHROPIC_MESSAGES.recognise(Request("POST", url, body=json.dumps({"messages": [], **body}).encode()))
    assert call is not None
    return call


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_terminator_without_an_ending_is_withheld(cut: Cutter) -> None:
    recording = next(recording for recording in STREAMS if recording.name == "end-message-stop-only")
    attempt, given = attempted(recording.call(ANTHROPIC_MESSAGES, URL), cut(recording))
    assert (attempt.failure, attempt.phase) == (Failure.UNFINISHED, Phase.OUTPUT)
    assert recording.body.startswith(given)
    assert b'"message_stop"' not in given
    assert b'"content_block_stop"' in given


# Recognising


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/messages",
            "/v1/messages/",
            "/v1/messages?beta=true",
            "/anthropic/v1/messages",
            "/api/v1/messages",
            "/messages",
            "/v1/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
            "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-4-1:rawPredict",
        ],
    )
    def test_any_path_that_ends_so(self, path: str) -> None:
        call = recognised({"stream": True}, "https://host" + path)
        assert (call.dialect, call.streaming, call.generation.choices, call.generation.acts) == (
            ANTHROPIC_MESSAGES,
            True,
            1,
            False,
        )

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/messages/count_tokens",
            "/v1/messages/batches",
            "/v1/messages/batches/msgbatch_1/cancel",
            "/v1/complete",
            "/v1/chat/completions",
            "/v1/mymessages",
            "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            "/v1/projects/p/locations/l/publishers/mistralai/models/mistral-large:streamRawPredict",
            "/model/anthropic.claude-sonnet-4-5/invoke-with-response-stream",
        ],
    )
    def test_no_other_path(self, path: str) -> None:
        request = Request("POST", "https://host" + path, body=b'{"stream": true, "messages": []}')
        assert ANTHROPIC_MESSAGES.recognise(request) is None

    @pytest.mark.parametrize(
        ("method", "body"),
        [
            ("GET", b'{"messages": []}'),
            ("POST", b""),
            ("POST", b"[]"),
            ("POST", b"not JSON"),
            ("POST", b'{"messages": "\xff"}'),
            ("POST", b"[" * 100_000),
            ("POST", b'{"role": "user", "content": "a message in an OpenAI thread"}'),
            ("POST", b'{"messages": "of a chat room"}'),
        ],
    )
    def test_no_other_request(self, method: str, body: bytes) -> None:
        assert ANTHROPIC_MESSAGES.recognise(Request(method, URL, body=body)) is None

    @pytest.mark.parametrize(
        ("body", "streaming"),
        [
            ({}, False),
            ({"stream": False}, False),
            ({"stream": 1}, False),
            ({"stream": "true"}, True),
            ({"stream": True}, True),
        ],
    )
    def test_a_stream_is_asked_for_in_the_body(self, body: dict[str, Any], streaming: bool) -> None:
        assert recognised(body).streaming is streaming

    @pytest.mark.parametrize(
        "body",
        [
            {"mcp_servers": [{"type": "url", "url": "https://mcp.example.com", "name": "m"}]},
            {"tools": [{"type": "mcp_toolset", "mcp_server_name": "m"}]},
            {"tools": [{"name": "x"}, {"type": "code_execution_20250825", "name": "code_execution"}]},
            {"container": "container_011C"},
            {"container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}},
            {"thread": {"type": "create"}},
        ],
        ids=str,
    )
    def test_what_acts_on_the_world(self, body: dict[str, Any]) -> None:
        assert recognised(body).generation.acts

    @pytest.mark.parametrize(
        "body",
        [
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
            {"tools": [{"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}]},
            {"tools": [{"type": "computer_20250124", "name": "computer"}, {"type": "bash_20250124", "name": "bash"}]},
            {"tools": [{"type": "memory_20250818", "name": "memory"}]},
            {"tools": [{"name": "code_execution_of_mine", "input_schema": {}}, {"type": "custom", "name": "x"}]},
            {"mcp_servers": [], "container": None, "tools": None},
            {"tools": "none"},
        ],
        ids=str,
    )
    def test_what_does_not(self, body: dict[str, Any]) -> None:
        assert not recognised(body).generation.acts

    def test_an_sdks_retry_gets_one_attempt(self) -> None:
        headers = ((b"x-stainless-retry-count", b"1"),)
        call = ANTHROPIC_MESSAGES.recognise(Request("POST", URL, headers, b'{"messages": []}'))
        assert call is not None
        assert call.single_attempt


# What an event means, case by case


class TestMeanings:
    @pytest.mark.parametrize(
        "silent",
        [
            Event(b""),
            Event(b"pong", "ping"),
            event("ping"),
            Event(b'{"type": "ping"}'),
            event("message_start", message={"content": [], "usage": {"input_tokens": 1}}),
            event("message_start"),
            started(type="text", text="", citations=None),
            started(type="text", text="", citations=[]),
            started(type="thinking", thinking="", signature=""),
            delta(type="text_delta", text=""),
            delta(type="thinking_delta", thinking=""),
            delta(type="input_json_delta", partial_json=""),
            delta(type="signature_delta", signature=""),
            delta(type="later_delta", later=None),
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": None, "stop_sequence": None}),
            ended(None, container=None),
            ended(""),
        ],
        ids=lambda silent: silent.text,
    )
    def test_silent(self, silent: Event) -> None:
        assert MessagesReader(Generation(streaming=True)).read(silent) == Signal.SILENT

    @pytest.mark.parametrize(
        "output",
        [
            event("message_start", message={"content": [{"type": "text", "text": "Hi"}]}),
            started(type="text", text="Hi"),
            started(type="text", text="", citations=[{"type": "char_location"}]),
            started(type="thinking", thinking="Hm", signature=""),
            started(type="thinking", thinking="", signature="abc"),
            started(type="redacted_thinking", data="abc"),
            started(type="tool_use", id="a", name="f", input={}),
            started(type="server_tool_use", id="a", name="web_search", input={}),
            started(type="web_search_tool_result", tool_use_id="a", content=[]),
            started(type="mcp_tool_use", id="a", name="f", server_name="m", input={}),
            started(type="compaction", content=None),
            started(type="later"),
            event("content_block_start", index=0),
            delta(type="text_delta", text=" "),
            delta(type="thinking_delta", thinking="Hm"),
            delta(type="signature_delta", signature="abc"),
            delta(type="input_json_delta", partial_json="{"),
            delta(type="citations_delta", citation={"type": "char_location"}),
            delta(type="compaction_delta", content="They"),
            delta(type="later_delta", later="x"),
            event("content_block_delta", index=0),
            ended(None, container={"id": "c"}),
            ended(None, later={"a": 1}),
            event("message_delta", delta="x"),
            event("later"),
            Event(b'{"a": 1}'),
            Event(b"{}"),
            Event(b"[]"),
            Event(b"7"),
        ],
        ids=lambda output: output.text,
    )
    def test_output(self, output: Event) -> None:
        assert MessagesReader(Generation(streaming=True)).read(output) in (Signal.REASONING, Signal.OUTPUT)

    @pytest.mark.parametrize(
        "reason",
        [
            "end_turn",
            "max_tokens",
            "stop_sequence",
            "tool_use",
            "pause_turn",
            "refusal",
            "compaction",
            "later",
            "model_context_window_exceeded",
        ],
    )
    def test_any_stop_reason_settles(self, reason: str) -> None:
        reader = MessagesReader(Generation(streaming=True))
        assert reader.read(ended(reason, stop_details={"type": "refusal"}, stop_sequence="x")) == Signal.SETTLES
        assert reader.finish_reason == reason
        assert reader.read(event("message_stop")) == Signal.ENDS
        assert MessagesDecoder().decode(ended(reason)) == [Finish(reason)]

    def test_a_stop_reason_that_reports_a_failure_is_an_error(self) -> None:
        assert MessagesReader(Generation(streaming=True)).read(ended("error")) == Signal.TRANSIENT_ERROR
        assert MessagesDecoder().decode(ended("error")) == [
            Failed("the provider ended the answer with error", "error", transient=True)
        ]

    def test_usage_behind_the_stop_reason_is_told_apart(self) -> None:
        usage = event("message_delta", usage={"output_tokens": 1})
        assert MessagesReader(Generation(streaming=True)).read(usage) == Signal.USAGE
        assert MessagesReader(Generation(streaming=True)).read(ended("end_turn")) == Signal.SETTLES

    def test_output_behind_a_stop_reason_takes_it_back(self) -> None:
        reader = MessagesReader(Generation(streaming=True))
        reader.read(ended("end_turn"))
        assert reader.read(delta(type="text_delta", text="Hi")) == Signal.OUTPUT | Signal.REOPENS
        assert reader.read(delta(type="text_delta", text="!")) == Signal.OUTPUT
        assert reader.read(ended("end_turn")) == Signal.SETTLES

    def test_the_json_is_trusted_more_than_the_event_field(self) -> None:
        stop, text = event("message_stop"), delta(type="text_delta", text="Hi")
        assert MessagesReader(Generation(streaming=True)).read(Event(stop.data, "content_block_delta")) == Signal.ENDS
        assert MessagesReader(Generation(streaming=True)).read(Event(text.data, "error")) == Signal.OUTPUT
        assert MessagesDecoder().decode(Event(text.data, "message")) == [Text("Hi")]

    @pytest.mark.parametrize(
        "data", [b"{", b"pong", b"{'a': 1}", b"[" * 100_000], ids=["cut", "word", "quotes", "deep"]
    )
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            MessagesReader(Generation(streaming=True)).read(Event(data))
        with pytest.raises(MalformedEvent, match="not JSON"):
            MessagesDecoder().decode(Event(data))

    def test_invalid_utf8_inside_json_is_not_malformed(self) -> None:
        broken = Event(b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"Z\xc3rich"}}')
        assert MessagesReader(Generation(streaming=True)).read(broken) == Signal.OUTPUT
        assert MessagesDecoder().decode(broken) == [Text("Z\ufffdrich")]


class TestErrors:
    """In the stream, and as the body of an error status."""

    @pytest.mark.parametrize(
        ("error", "transient"),
        [
            ({"type": "overloaded_error", "message": "Overloaded"}, True),
            ({"type": "rate_limit_error", "message": "slow down"}, True),
            ({"type": "api_error", "message": "oops"}, True),
            ({"type": "timeout_error", "message": "late"}, True),
            ({"type": "internal_error", "message": "vLLM"}, True),
            ({"type": "server_error", "code": 500, "message": "llama.cpp"}, True),
            ({"code": 529, "message": "OpenRouter"}, True),
            ("upstream timed out", True),
            ({"type": "invalid_request_error", "message": "no"}, False),
            ({"type": "authentication_error", "message": "no"}, False),
            ({"type": "permission_error", "message": "no"}, False),
            ({"type": "billing_error", "message": "no"}, False),
            ({"type": "not_found_error", "message": "no"}, False),
            ({"type": "request_too_large", "message": "no"}, False),
            ({"type": "later_error", "message": "no"}, False),
            ({"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}}, False),
            ({"type": "api_error", "message": "Your credit balance is too low"}, False),
            ({"type": "exceed_context_size_error", "code": 400}, False),
            ({}, False),
            (True, False),
        ],
        ids=str,
    )
    def test_in_the_stream(self, error: Any, transient: bool) -> None:
        signal = Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        for sent in (event("error", error=error), Event(json.dumps({"type": "error", "error": error}).encode())):
            assert MessagesReader(Generation(streaming=True)).read(sent) == signal
            [failed] = MessagesDecoder().decode(sent)
            assert isinstance(failed, Failed)
            assert failed.transient is transient
            assert failed.message
            assert ANTHROPIC_MESSAGES.notable.search(encode(sent.text, event=sent.type))

    @pytest.mark.parametrize(
        ("sent", "transient"),
        [
            (Event(b"Internal Server Error", "error"), True),
            (Event(b'"model overloaded"', "error"), True),
            (Event(b'{"code": 500, "type": "server_error", "message": "flat"}', "error"), True),
            (Event(b'{"error": {"type": "overloaded_error"}}'), True),
            (Event(b'{"error": "no such model"}'), False),
            (Event(b"no", "error"), False),
            (Event(b"{}", "error"), False),
        ],
        ids=lambda value: value.text if isinstance(value, Event) else None,
    )
    def test_in_other_shapes(self, sent: Event, transient: bool) -> None:
        assert MessagesReader(Generation(streaming=True)).read(sent) == (
            Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        )
        [failed] = MessagesDecoder().decode(sent)
        assert isinstance(failed, Failed)
        assert failed.transient is transient
        assert ANTHROPIC_MESSAGES.notable.search(encode(sent.text, event="" if sent.type == "message" else sent.type))

    @pytest.mark.parametrize(
        ("status", "body", "transient"),
        [
            (429, b"", True),
            (529, b"<html>", True),
            (503, b"\xff\xfe", True),
            (500, b"[" * 100_000, True),
            (408, b"[]", True),
            (409, b'{"error": {"type": "conflict_error"}}', True),
            (400, b'{"error": {"type": "overloaded_error"}}', False),
            (429, b'{"error": {"type": "billing_error"}}', False),
            (404, b'{"error": "not found"}', False),
        ],
    )
    def test_refusals(self, status: int, body: bytes, transient: bool) -> None:
        refusal = ANTHROPIC_MESSAGES.read_error(status, body)
        assert refusal.transient is transient
        assert refusal.message

    def test_a_body_that_is_not_in_the_shape_is_not_quoted(self) -> None:
        assert ANTHROPIC_MESSAGES.read_error(502, b"<html>secret</html>").message == "HTTP 502"


# Typed events and messages, where the corpus has none


class TestBlocks:
    def test_the_last_signature_counts(self) -> None:
        decoder = MessagesDecoder()
        decoder.decode(started(type="thinking", thinking="", signature=""))
        decoder.decode(delta(type="thinking_delta", thinking="Hm"))
        assert decoder.decode(delta(type="signature_delta", signature="first")) == [Signature("first")]
        decoder.decode(delta(type="signature_delta", signature="second"))
        decoder.decode(event("content_block_stop", index=0))
        [message] = Answer(ANTHROPIC_MESSAGES, decoder).messages
        assert message["content"] == [{"type": "thinking", "thinking": "Hm", "signature": "second"}]

    def test_content_in_a_blocks_start(self) -> None:
        assert MessagesDecoder().decode(started(type="text", text="Hi")) == [Text("Hi")]
        thought = started(type="thinking", thinking="Hm", signature="s")
        assert MessagesDecoder().decode(thought) == [Reasoning("Hm"), Signature("s")]

    def test_a_delta_without_a_start_makes_its_block(self) -> None:
        decoder = MessagesDecoder()
        assert decoder.decode(delta(type="text_delta", text="Hi")) == [Text("Hi")]
        assert Answer(ANTHROPIC_MESSAGES, decoder).messages == [
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
        ]

    def test_input_that_came_with_the_start_of_its_block(self) -> None:
        decoder = MessagesDecoder()
        assert decoder.decode(started(type="tool_use", id="a", name="f", input={"city": "Paris"})) == [
            ToolCallStart(0, "a", "f")
        ]
        assert decoder.decode(event("content_block_stop", index=0)) == [ToolCallArguments(0, '{"city":"Paris"}')]
        assert decoder.decode(event("content_block_stop", index=0)) == []

    @pytest.mark.parametrize("pieces", [["{"], ["[1]"], ['"x"'], ['{"a": 1}', "}"]])
    def test_a_call_without_a_json_object_is_not_sent_back(self, pieces: list[str]) -> None:
        decoder = MessagesDecoder()
        decoder.decode(started(type="tool_use", id="a", name="f", input={}))
        for piece in pieces:
            decoder.decode(delta(type="input_json_delta", partial_json=piece))
        decoder.decode(event("content_block_stop", index=0))
        assert Answer(ANTHROPIC_MESSAGES, decoder).messages == []

    def test_blocks_are_in_order_of_their_index(self) -> None:
        decoder = MessagesDecoder()
        for index in (1, 0):
            decoder.decode(
                event("content_block_start", index=index, content_block={"type": "text", "text": str(index)})
            )
        [message] = Answer(ANTHROPIC_MESSAGES, decoder).messages
        assert [block["text"] for block in message["content"]] == ["0", "1"]

    def test_counts_that_are_not_said_again_stay(self) -> None:
        decoder = MessagesDecoder()
        usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}
        decoder.decode(event("message_start", message={"usage": usage}))
        said = event("message_delta", delta={}, usage={"output_tokens": 9, "cache_read_input_tokens": None})
        assert decoder.decode(said) == [UsageReport(Usage(input_tokens=7, cached_tokens=4, output_tokens=9))]


class TestWholeAnswers:
    def test_an_answer(self) -> None:
        content = [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        ]
        body = {
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "cache_creation_input_tokens": 2, "output_tokens": 3},
        }
        decoder = MessagesDecoder()
        assert decoder.decode_whole(json.dumps(body).encode()) == [
            Reasoning("Hm"),
            Signature("s"),
            Text("Hi"),
            ToolCallStart(2, "a", "f"),
            ToolCallArguments(2, '{"x":1}'),
            ToolCallStart(3, "b", "g"),
            Finish("tool_use"),
            UsageReport(Usage(input_tokens=3, output_tokens=3)),
        ]
        answer = Answer(ANTHROPIC_MESSAGES, decoder)
        answer.add(Finish("tool_use"))
        assert answer.messages == [{"role": "assistant", "content": content}]

    def test_an_error_with_status_200(self) -> None:
        body = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
        assert MessagesDecoder().decode_whole(body) == [Failed("Overloaded", "overloaded_error", transient=True)]

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"\xff", b'{"content": "Hi"}'])
    def test_no_answer(self, body: bytes) -> None:
        assert not MessagesDecoder().decode_whole(body)


# Anything at all

KINDS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop"]
KINDS += ["message_delta", "message_stop", "ping", "error", "message"]
WORDS = st.sampled_from(
    [
        *KINDS,
        "type",
        "index",
        "delta",
        "content_block",
        "message",
        "content",
        "usage",
        "stop_reason",
        "end_turn",
        "text",
        "thinking",
        "signature",
        "text_delta",
        "thinking_delta",
        "signature_delta",
        "input_json_delta",
        "tool_use",
        "partial_json",
        "input",
        "citations",
        "citations_delta",
        "citation",
        "compaction_delta",
        "details",
        "data",
        "id",
        "name",
        "input_tokens",
        "output_tokens",
        "output_tokens_details",
        "code",
        "redacted_thinking",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(WORDS, JSON, max_size=4)
TYPED = st.builds(
    lambda kind, index, inner, rest: {**rest, "type": kind, "index": index, "delta": inner, "content_block": inner},
    st.sampled_from(KINDS),
    st.integers(0, 2) | st.none(),
    st.builds(lambda kind, rest: {**rest, "type": kind}, WORDS, FIELDS),
    FIELDS,
)
EVENTS = st.builds(
    Event,
    (JSON | TYPED).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    st.sampled_from(["message", *KINDS]),
)


@given(st.lists(EVENTS, max_size=6))
def test_nothing_that_a_server_may_send_breaks_the_reader_or_the_decoder(events: list[Event]) -> None:
    reader, decoder = MessagesReader(Generation(streaming=True)), MessagesDecoder()
    for sent in events:
        try:
            signal = reader.read(sent)
        except MalformedEvent:
            with pytest.raises(MalformedEvent):
                decoder.decode(sent)
            continue
        decoded = decoder.decode(sent)
        assert any(isinstance(item, Failed) for item in decoded) is bool(signal & Signal.ERROR)
        if signal & (Signal.SETTLES | Signal.ENDS | Signal.ERROR):
            name = "" if sent.type == "message" else sent.type
            assert ANTHROPIC_MESSAGES.notable.search(encode(sent.text, event=name))
    json.dumps(Answer(ANTHROPIC_MESSAGES, decoder).messages)
