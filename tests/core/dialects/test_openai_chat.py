"""The chat dialect, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.dialect import Generation, Signal
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_chat.decode import ChatDecoder
from unbroken.core.dialects.openai_chat.rule import ChatReader
from unbroken.core.events import (
    Failed,
    Finish,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.core.http import Head, Request
from unbroken.core.sse import Event, encode
from unbroken.errors import MalformedEvent

URL = "https://api.example.com/v1/chat/completions"


def chunk(choices: list[dict[str, Any]] | None = None, **fields: Any) -> Event:
    body = fields if choices is None else {"choices": choices, **fields}
    return Event(json.dumps(body).encode())


def delta(index: int = 0, finish_reason: str | None = None, **fields: Any) -> Event:
    return chunk([{"index": index, "delta": fields, "finish_reason": finish_reason}])


@pytest.mark.parametrize("text", ['"finish_reason": "stop"', '{"error": {"code": 500}}', '"index": 1', "it's over"])
def test_the_needle_is_not_fooled_by_quotations(text: str) -> None:
    assert not OPENAI_CHAT.notable.search(encode(delta(content=text).text))


# Recognising


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/chat/completions",
            "/chat/completions/",
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            "/api/v1/chat/completions",
        ],
    )
    def test_any_path_that_ends_so(self, path: str) -> None:
        call = OPENAI_CHAT.recognise(Request("POST", "http://host" + path, body=b'{"stream": true}'))
        assert call is not None
        assert (call.dialect, call.streaming, call.generation.choices) == (OPENAI_CHAT, True, 1)

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/v1/chat/completions", b"{}"),
            ("POST", "/v1/completions", b"{}"),
            ("POST", "/v1/chat/completions/abc/cancel", b"{}"),
            ("POST", "/v1/chat/completions", b""),
            ("POST", "/v1/chat/completions", b"[]"),
            ("POST", "/v1/chat/completions", b"not JSON"),
            ("POST", "/v1/chat/completions", b"[" * 100_000),
        ],
    )
    def test_nothing_else(self, method: str, path: str, body: bytes) -> None:
        assert OPENAI_CHAT.recognise(Request(method, "http://host" + path, body=body)) is None

    @pytest.mark.parametrize(
        ("body", "streaming", "choices"),
        [
            (b'{"stream": false}', False, 1),
            (b"{}", False, 1),
            (b'{"stream": 1}', False, 1),
            (b'{"stream": "true"}', True, 1),
            (b'{"stream": true, "n": 3}', True, 3),
            (b'{"n": 0}', False, 1),
            (b'{"n": null}', False, 1),
            (b'{"n": "2"}', False, 1),
        ],
    )
    def test_what_is_asked_for(self, body: bytes, streaming: bool, choices: int) -> None:
        call = OPENAI_CHAT.recognise(Request("POST", URL, body=body))
        assert call is not None
        assert (call.streaming, call.generation.choices) == (streaming, choices)

    @pytest.mark.parametrize(("count", "single"), [(b"0", False), (b"", False), (b"1", True), (b" 2", True)])
    def test_an_sdks_retry_gets_one_attempt(self, count: bytes, single: bool) -> None:
        call = OPENAI_CHAT.recognise(Request("POST", URL, ((b"X-Stainless-Retry-Count", count),), b"{}"))
        assert call is not None
        assert call.single_attempt is single

    def test_the_content_type_that_is_expected(self) -> None:
        stream = OPENAI_CHAT.recognise(Request("POST", URL, body=b'{"stream": true}'))
        document = OPENAI_CHAT.recognise(Request("POST", URL, body=b"{}"))
        assert stream
        assert document
        events = Head(200, ((b"Content-Type", b"Text/Event-Stream; charset=utf-8"),))
        json_ = Head(200, ((b"content-type", b"application/json"),))
        assert (stream.expects(events), stream.expects(json_), stream.expects(Head(200))) == (True, False, False)
        assert (document.expects(events), document.expects(json_)) == (False, True)


# What an event means, case by case


class TestMeanings:
    @pytest.mark.parametrize(
        "event",
        [
            Event(b""),
            Event(b"null"),
            Event(b"  "),
            chunk(),
            chunk([]),
            chunk([], prompt_filter_results=[{"prompt_index": 0}], model=""),
            delta(role="assistant"),
            delta(role="assistant", content="", refusal=None, tool_calls=[], reasoning_details=[]),
            delta(function_call={"arguments": ""}),
            delta(finish_reason="", content=""),
            chunk([{"index": 0, "content_filter_results": {"hate": {"filtered": False}}}]),
            chunk([{"index": 0, "delta": None}]),
            Event(b'{"type": "ping"}', "ping"),
            Event(b"", "error"),
        ],
        ids=lambda event: event.text,
    )
    def test_silent(self, event: Event) -> None:
        assert ChatReader(Generation(streaming=True)).read(event) == Signal.SILENT

    @pytest.mark.parametrize(
        "event",
        [
            delta(content="Hi"),
            delta(content=" "),
            delta(content=[{"type": "text", "text": "Hi"}]),
            delta(reasoning_content="Hm"),
            delta(reasoning="Hm"),
            delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "xyz"}]),
            delta(refusal="I"),
            delta(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
            delta(function_call={"name": "f", "arguments": ""}),
            delta(audio={"data": "AAAA"}),
            delta(audio={"id": "audio_1", "expires_at": 1}),
            delta(images=[{"image_url": {"url": "data:"}}]),
            delta(annotations=[{"type": "url_citation"}]),
            delta(something_new={"a": 1}),
            chunk([{"index": 0, "text": "Hi"}]),
            chunk([{"index": 0, "message": {"content": "Hi"}}]),
            chunk([], something_new=1),
            chunk(type="response.created"),
            chunk({"not": "a list"}),  # type: ignore[arg-type]
            chunk(["not an object"]),  # type: ignore[list-item]
            chunk([{"index": 0, "delta": "not an object"}]),
            Event(b"42"),
            Event(b'"text"'),
            Event(b"[]"),
        ],
        ids=lambda event: event.text,
    )
    def test_output_and_whatever_is_not_known(self, event: Event) -> None:
        assert ChatReader(Generation(streaming=True)).read(event) in (Signal.REASONING, Signal.OUTPUT)

    @pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "something_new"])
    def test_any_finish_reason_settles(self, reason: str) -> None:
        reader = ChatReader(Generation(streaming=True))
        assert reader.read(delta(finish_reason=reason)) == Signal.SETTLES
        assert reader.finish_reason == reason
        assert reader.read(Event(b"[DONE]")) == Signal.ENDS

    def test_usage_without_choices_is_told_apart(self) -> None:
        for usage in (chunk([], usage={"prompt_tokens": 1}), chunk(None, usage={"prompt_tokens": 1}, model="m")):
            assert ChatReader(Generation(streaming=True)).read(usage) == Signal.USAGE
        beside = chunk([{"index": 0, "delta": {}}], usage={"prompt_tokens": 1})
        assert ChatReader(Generation(streaming=True)).read(beside) == Signal.SILENT

    def test_done_alone_settles_nothing(self) -> None:
        reader = ChatReader(Generation(streaming=True))
        reader.read(delta(content="Hi"))
        assert reader.read(Event(b" [DONE] ")) == Signal.ENDS

    def test_every_choice_that_was_asked_for_must_finish(self) -> None:
        reader = ChatReader(Generation(streaming=True, choices=2))
        assert reader.read(delta(0, "stop")) == Signal.FINISHES
        assert reader.read(delta(0, "stop")) == Signal.FINISHES
        assert reader.read(delta(1, "stop", content="!")) == Signal.OUTPUT | Signal.SETTLES

    def test_output_behind_a_finish_takes_it_back(self) -> None:
        reader = ChatReader(Generation(streaming=True))
        reader.read(delta(0, "stop", content="a"))
        assert reader.read(delta(content="b")) == Signal.OUTPUT | Signal.REOPENS
        assert reader.read(delta(content="c")) == Signal.OUTPUT
        assert reader.read(delta(0, "stop", content="d")) == Signal.OUTPUT | Signal.SETTLES
        assert reader.read(delta(0, "stop", content="e")) == Signal.OUTPUT | Signal.REOPENS | Signal.SETTLES
        assert reader.read(delta(content="")) == Signal.SILENT

    @pytest.mark.parametrize("none", ["", "null", "None", " "])
    def test_a_word_for_no_reason_is_none(self, none: str) -> None:
        assert ChatReader(Generation(streaming=True)).read(delta(0, none)) == Signal.SILENT

    def test_a_server_that_ignores_n_settles_with_its_terminator(self) -> None:
        reader = ChatReader(Generation(streaming=True, choices=2))
        reader.read(delta(0, "stop", content="all there is"))
        assert reader.read(Event(b"[DONE]")) == Signal.ENDS | Signal.SETTLES

    def test_but_not_while_a_choice_that_has_begun_is_open(self) -> None:
        reader = ChatReader(Generation(streaming=True, choices=2))
        reader.read(delta(1, content="begun"))
        reader.read(delta(0, "stop"))
        assert reader.read(Event(b"[DONE]")) == Signal.ENDS

    def test_audio_ends_with_a_date(self) -> None:
        reader = ChatReader(Generation(streaming=True))
        assert reader.read(delta(audio={"expires_at": 1})) == Signal.OUTPUT | Signal.SETTLES

    @pytest.mark.parametrize(
        "data", [b"{", b"pong", b"{'a': 1}", b"[" * 100_000], ids=["cut", "word", "quotes", "deep"]
    )
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            ChatReader(Generation(streaming=True)).read(Event(data))
        with pytest.raises(MalformedEvent, match="not JSON"):
            ChatDecoder().decode(Event(data))

    def test_invalid_utf8_inside_json_is_not_malformed(self) -> None:
        event = Event(b'{"choices":[{"index":0,"delta":{"content":"Z\xc3rich"}}]}')
        assert ChatReader(Generation(streaming=True)).read(event) == Signal.OUTPUT
        assert ChatDecoder().decode(event) == [Text("Z\ufffdrich")]


class TestErrors:
    """In the stream, and as the body of an error status."""

    @pytest.mark.parametrize(
        "error",
        [
            {"error": {"message": "Overloaded", "type": "overloaded_error"}},
            {"error": {"message": "slow down", "code": "rate_limit_exceeded", "type": "tokens"}},
            {"error": {"code": 503, "status": "UNAVAILABLE"}},
            {"error": {"code": "429"}},
            {"error": {"message": "Internal server error"}},
            {"error": "upstream timed out"},
            {"object": "error", "message": "worker died", "type": "InternalServerError", "code": 500},
            {"detail": "Service Unavailable"},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "insufficient_system_resource"}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 502}}]},
            {"error": {"code": 500, "message": "x"}, "choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        ],
        ids=str,
    )
    def test_transient(self, error: dict[str, Any]) -> None:
        assert ChatReader(Generation(streaming=True)).read(chunk(**error)) == Signal.TRANSIENT_ERROR
        assert self.decoded(error).transient
        assert OPENAI_CHAT.notable.search(encode(json.dumps(error)))

    @pytest.mark.parametrize(
        "error",
        [
            {"error": {"message": "no", "type": "invalid_request_error"}},
            {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
            {"error": {"message": "Insufficient Balance", "code": 503}},
            {"error": {"code": 402, "message": "Insufficient credits"}},
            {"error": {"code": 400, "type": "server_error"}},
            {"error": "no such model"},
            {"detail": [{"loc": ["body"], "msg": "field required"}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 400}}]},
            {"error": True},
        ],
        ids=str,
    )
    def test_permanent(self, error: dict[str, Any]) -> None:
        assert ChatReader(Generation(streaming=True)).read(chunk(**error)) == Signal.PERMANENT_ERROR
        assert not self.decoded(error).transient
        assert OPENAI_CHAT.notable.search(encode(json.dumps(error)))

    @pytest.mark.parametrize("error", [{"error": None}, {"error": ""}, {"error": {}}, {"error": False}], ids=str)
    def test_none_at_all(self, error: dict[str, Any]) -> None:
        event = chunk([{"index": 0, "delta": {"content": "Hi"}}], **error)
        assert ChatReader(Generation(streaming=True)).read(event) == Signal.OUTPUT
        assert ChatDecoder().decode(event) == [Text("Hi")]

    @pytest.mark.parametrize(
        ("data", "transient"),
        [
            (b"Internal Server Error", True),
            (b'"model overloaded"', True),
            (b"no", False),
            (b"{}", False),
            (b"7", False),
        ],
    )
    def test_an_error_event_may_say_anything(self, data: bytes, transient: bool) -> None:
        event = Event(data, "error")
        signal = Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        assert ChatReader(Generation(streaming=True)).read(event) == signal
        [failed] = ChatDecoder().decode(event)
        assert isinstance(failed, Failed)
        assert failed.transient is transient

    def test_what_came_with_an_error_is_not_lost(self) -> None:
        event = chunk(
            [{"index": 0, "delta": {"content": "last words"}, "finish_reason": "error"}],
            error={"code": 502, "message": "Provider returned error"},
            usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        )
        assert ChatDecoder().decode(event) == [
            Text("last words"),
            UsageReport(Usage(input_tokens=3, output_tokens=2)),
            Failed("Provider returned error", "502", True),
        ]

    @pytest.mark.parametrize(
        ("status", "body", "transient"),
        [
            (429, b"", True),
            (500, b"<html>", True),
            (503, b"\xff\xfe", True),
            (529, b"[]", True),
            (500, b"[" * 100_000, True),
            (429, b'{"error": {"code": "insufficient_quota"}}', False),
            (429, b'{"error": {"type": "insufficient_quota", "code": null}}', False),
            (503, b'{"error": {"message": "Insufficient balance"}}', False),
            (401, b'{"error": {"message": "bad key"}}', False),
            (400, b"", False),
        ],
    )
    def test_refusals(self, status: int, body: bytes, transient: bool) -> None:
        refusal = OPENAI_CHAT.read_error(status, body)
        assert refusal.transient is transient
        assert refusal.message

    def test_a_body_that_is_not_in_the_shape_is_not_quoted(self) -> None:
        assert OPENAI_CHAT.read_error(502, b"<html>secret</html>").message == "HTTP 502"

    @staticmethod
    def decoded(error: dict[str, Any]) -> Failed:
        failed = ChatDecoder().decode(chunk(**error))[-1]
        assert isinstance(failed, Failed)
        return failed


class TestToolCalls:
    def test_calls_without_an_index_are_told_apart_by_id(self) -> None:
        decoder = ChatDecoder()
        first = decoder.decode(delta(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": "{"}}]))
        second = decoder.decode(delta(tool_calls=[{"id": "b", "function": {"name": "f", "arguments": "{}"}}]))
        again = decoder.decode(delta(tool_calls=[{"id": "a", "function": {"arguments": "}"}}]))
        assert first == [ToolCallStart(0, "a", "f"), ToolCallArguments(0, "{")]
        assert second == [ToolCallStart(1, "b", "f"), ToolCallArguments(1, "{}")]
        assert again == [ToolCallArguments(0, "}")]

    def test_without_an_id_either_a_name_begins_a_call_and_the_rest_goes_on_with_it(self) -> None:
        decoder = ChatDecoder()
        calls = [{"function": {"name": "f"}}, {"function": {"arguments": "{}"}}, {"function": {"name": "g"}}]
        assert decoder.decode(delta(tool_calls=calls)) == [
            ToolCallStart(0, "", "f"),
            ToolCallArguments(0, "{}"),
            ToolCallStart(1, "", "g"),
        ]

    def test_arguments_that_came_as_an_object_become_json(self) -> None:
        calls = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"city": "Paris"}}}]
        calls += [{"index": 1, "id": "b", "function": {"name": "g", "arguments": {}}}]
        assert ChatDecoder().decode(delta(tool_calls=calls)) == [
            ToolCallStart(0, "a", "f"),
            ToolCallArguments(0, '{"city":"Paris"}'),
            ToolCallStart(1, "b", "g"),
            ToolCallArguments(1, "{}"),
        ]

    def test_calls_of_two_choices(self) -> None:
        call = {"index": 0, "id": "a", "function": {"name": "f"}}
        event = chunk([{"index": i, "delta": {"tool_calls": [call]}} for i in (0, 1)])
        assert ChatDecoder().decode(event) == [ToolCallStart(0, "a", "f", 0), ToolCallStart(0, "a", "f", 1)]


class TestWholeAnswers:
    def test_an_answer(self) -> None:
        body = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        }
        assert ChatDecoder().decode_whole(json.dumps(body).encode()) == [
            Text("Hi"),
            Finish("stop"),
            UsageReport(Usage(input_tokens=1, output_tokens=2)),
        ]

    def test_an_error_with_status_200(self) -> None:
        [failed] = ChatDecoder().decode_whole(b'{"error": {"code": 500}}')
        assert failed == Failed("the provider reported an error", "500", transient=True)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"\xff"])
    def test_no_answer(self, body: bytes) -> None:
        assert not ChatDecoder().decode_whole(body)


# Anything at all

WORDS = st.sampled_from(
    [
        "choices",
        "delta",
        "index",
        "finish_reason",
        "error",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "audio",
        "expires_at",
        "message",
        "code",
        "type",
        "detail",
        "object",
        "usage",
        "thinking",
        "text",
        "stop",
        "id",
        "name",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
CHOICES = st.fixed_dictionaries({"choices": st.lists(st.dictionaries(WORDS, JSON, max_size=4), max_size=2)})
EVENTS = st.builds(
    Event,
    (JSON | CHOICES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    st.sampled_from(["message", "error", "ping"]),
)


@given(st.lists(EVENTS, max_size=4), st.integers(1, 2))
def test_nothing_that_a_server_may_send_breaks_the_reader_or_the_decoder(events: list[Event], choices: int) -> None:
    reader, decoder = ChatReader(Generation(streaming=True, choices=choices)), ChatDecoder()
    for event in events:
        try:
            signal = reader.read(event)
        except MalformedEvent:
            signal = None
        try:
            decoded = decoder.decode(event)
        except MalformedEvent:
            continue
        failed = any(isinstance(item, Failed) for item in decoded)
        assert failed is bool(signal and signal & Signal.ERROR)
        if signal and signal & (Signal.SETTLES | Signal.ERROR):
            assert OPENAI_CHAT.notable.search(encode(event.text, event=event.type))
