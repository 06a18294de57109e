"""The legacy completions, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.answer import Answer
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.dialects.openai_completions.decode import CompletionsDecoder
from unbroken.core.dialects.openai_completions.rule import CompletionsReader
from unbroken.core.events import Failed, Finish, Reasoning, Text, Usage, UsageReport
from unbroken.core.http import Request
from unbroken.core.sse import Event, encode
from unbroken.errors import MalformedEvent

URL = "https://api.example.com/v1/completions"


def chunk(*choices: object, **fields: Any) -> Event:
    return Event(json.dumps({"choices": choices, **fields}).encode())


def choice(text: str = "", index: int = 0, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None, **fields}


@pytest.mark.parametrize(
    "text",
    ['"finish_reason": "stop"', '{"error": {"code": 500}}', '"index": 1', "[DONE]", "\ndata: [DONE]\n\nevent: error\n"],
)
def test_the_needle_is_not_fooled_by_quotations(text: str) -> None:
    assert not OPENAI_COMPLETIONS.notable.search(encode(chunk(choice(text)).text))


@pytest.mark.parametrize(
    ("status", "body", "transient"),
    [
        (429, b"", True),
        (500, b"<html>", True),
        (503, b"[]", True),
        (429, b'{"error": {"code": "insufficient_quota"}}', False),
        (400, b"[" * 100_000, False),
    ],
)
def test_other_refusals(status: int, body: bytes, transient: bool) -> None:
    assert OPENAI_COMPLETIONS.read_error(status, body).transient is transient


# Recognising


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/completions",
            "/v1/completions/",
            "/beta/completions",
            "/v1/fim/completions",
            "/openai/deployments/instruct/completions?api-version=2024-10-21",
            "/v1/engines/code/completions",
        ],
    )
    def test_any_path_that_ends_so(self, path: str) -> None:
        call = OPENAI_COMPLETIONS.recognise(Request("POST", "http://host" + path, body=b'{"prompt":"A","stream":true}'))
        assert call == Call(OPENAI_COMPLETIONS, Generation(streaming=True))

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/v1/completions", b'{"prompt": "A"}'),
            ("POST", "/v1/chat/completions", b'{"prompt": "A"}'),
            ("POST", "/v1/chat/completions/", b'{"prompt": "A"}'),
            ("POST", "/completion", b'{"prompt": "A"}'),
            ("POST", "/completions", b'{"prompt": "A"}'),  # llama.cpp's own format
            ("POST", "/v1/completions/cmpl_1", b'{"prompt": "A"}'),
            ("POST", "/v1/completions", b"{}"),
            ("POST", "/v1/completions", b"[]"),
            ("POST", "/v1/completions", b""),
            ("POST", "/v1/completions", b"[" * 100_000),
        ],
    )
    def test_nothing_else(self, method: str, path: str, body: bytes) -> None:
        assert OPENAI_COMPLETIONS.recognise(Request(method, "http://host" + path, body=body)) is None

    @pytest.mark.parametrize(
        ("body", "choices"),
        [
            ({"prompt": "A"}, 1),
            ({"prompt": "A", "n": 3}, 3),
            ({"prompt": "A", "n": 2, "best_of": 5}, 2),
            ({"prompt": ["A", "B"]}, 2),
            ({"prompt": ["A", "B"], "n": 2}, 4),
            ({"prompt": [1, 2, 3]}, 1),
            ({"prompt": [[1, 2], [3]]}, 2),
            ({"prompt": []}, 1),
            ({"prompt": None, "model": "m"}, 1),
            ({"model": "m", "prompt_embeds": ["AA==", "AA=="]}, 2),
            ({"prompt": "A", "n": 0}, 1),
            ({"prompt": "A", "n": None}, 1),
            ({"prompt": "A", "n": "2"}, 1),
            ({"prompt": "A", "n": True}, 1),
        ],
        ids=str,
    )
    def test_choices(self, body: dict[str, Any], choices: int) -> None:
        call = OPENAI_COMPLETIONS.recognise(Request("POST", URL, body=json.dumps(body).encode()))
        assert call == Call(OPENAI_COMPLETIONS, Generation(streaming=False, choices=choices))

    def test_an_sdks_retry_gets_one_attempt(self) -> None:
        request = Request("POST", URL, ((b"x-stainless-retry-count", b"1"),), b'{"prompt": "A"}')
        call = OPENAI_COMPLETIONS.recognise(request)
        assert call is not None
        assert call.single_attempt


# What an event means, case by case


class TestMeanings:
    @pytest.mark.parametrize(
        "silent",
        [
            Event(b""),
            Event(b"null"),
            Event(b"{}", "ping"),
            chunk(),
            chunk(choice()),
            chunk(choice(stop_reason=128_009, content_filter_results={"hate": {"severity": "safe"}})),
            chunk({"index": 0, "delta": {"role": "assistant", "content": ""}}),
            chunk(choice(finish_reason="")),
            chunk(choice(token_ids=[])),
        ],
        ids=lambda each: each.text,
    )
    def test_silent(self, silent: Event) -> None:
        assert CompletionsReader(Generation(streaming=True)).read(silent) == Signal.SILENT

    @pytest.mark.parametrize(
        "output",
        [
            chunk(choice("Hi")),
            chunk(choice(" ")),
            chunk(choice("", logprobs={"tokens": ["bytes:\\xe2"]})),
            chunk(choice("", token_ids=[5])),
            chunk(choice("", reasoning="Hm")),
            chunk({"index": 0, "delta": {"content": "Hi"}}),
            chunk(choice("", something_new={"a": 1})),
            chunk("not an object"),
            chunk(something_new=1),
            Event(b'{"choices": {"not": "a list"}}'),
            Event(b'{"content": " Paris", "stop": false}'),
            Event(b"42"),
            Event(b"[]"),
        ],
        ids=lambda each: each.text,
    )
    def test_output_and_whatever_is_not_known(self, output: Event) -> None:
        assert CompletionsReader(Generation(streaming=True)).read(output) in (Signal.REASONING, Signal.OUTPUT)

    def test_a_finish_reason_settles_until_output_takes_it_back(self) -> None:
        reader = CompletionsReader(Generation(streaming=True))
        assert reader.read(chunk(choice("!", finish_reason="stop"))) == Signal.OUTPUT | Signal.SETTLES
        assert reader.read(chunk(choice("?"))) == Signal.OUTPUT | Signal.REOPENS
        assert reader.read(chunk(choice(finish_reason="stop"))) == Signal.SETTLES
        assert reader.read(Event(b" [DONE] ")) == Signal.ENDS

    def test_every_choice_that_was_asked_for_must_finish(self) -> None:
        reader = CompletionsReader(Generation(streaming=True, choices=2))
        assert reader.read(chunk(choice(finish_reason="stop"))) == Signal.FINISHES
        assert reader.read(chunk(choice(index=1, finish_reason="stop"))) == Signal.SETTLES

    def test_a_server_that_ignores_n_settles_with_its_terminator(self) -> None:
        reader = CompletionsReader(Generation(streaming=True, choices=2))
        reader.read(chunk(choice("all there is", finish_reason="stop")))
        assert reader.read(Event(b"[DONE]")) == Signal.ENDS | Signal.SETTLES

    def test_but_not_while_a_choice_that_has_begun_is_open(self) -> None:
        reader = CompletionsReader(Generation(streaming=True, choices=2))
        reader.read(chunk(choice("second", 1, "stop")))  # so there is a first, though the fast path did not show it
        assert reader.read(Event(b"[DONE]")) == Signal.ENDS

    @pytest.mark.parametrize(
        ("error", "transient"),
        [
            ({"error": {"type": "server_error"}}, True),
            ({"error": {"code": 429}}, True),
            ({"error": "upstream timed out"}, True),
            ({"object": "error", "message": "died", "type": "InternalServerError", "code": 500}, True),
            ({"choices": [choice(finish_reason="error")]}, True),
            ({"error": {"type": "invalid_request_error"}}, False),
            ({"error": {"code": "insufficient_quota"}}, False),
            ({"detail": "no"}, False),
        ],
        ids=str,
    )
    def test_errors(self, error: dict[str, Any], transient: bool) -> None:
        event = Event(json.dumps(error).encode())
        assert CompletionsReader(Generation(streaming=True)).read(event) == (
            Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        )
        [failed] = CompletionsDecoder().decode(event)
        assert isinstance(failed, Failed)
        assert failed.transient is transient

    def test_an_error_event_may_say_anything(self) -> None:
        event = Event(b"Internal Server Error", "error")
        assert CompletionsReader(Generation(streaming=True)).read(event) == Signal.TRANSIENT_ERROR
        assert CompletionsDecoder().decode(event) == [Failed("Internal Server Error", "", True)]

    @pytest.mark.parametrize("data", [b"{", b"pong", b"[" * 100_000], ids=["cut", "word", "deep"])
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            CompletionsReader(Generation(streaming=True)).read(Event(data))
        with pytest.raises(MalformedEvent, match="not JSON"):
            CompletionsDecoder().decode(Event(data))


class TestDecoding:
    def test_reasoning(self) -> None:
        event = chunk(choice("Hi", 1, reasoning="Hm"))
        assert CompletionsDecoder().decode(event) == [Reasoning("Hm", 1), Text("Hi", 1)]

    def test_a_whole_answer(self) -> None:
        body = chunk(
            choice("a", 0, "stop"),
            choice("b", 1, "length"),
            usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_cache_hit_tokens": 8},
        )
        assert CompletionsDecoder().decode_whole(body.data) == [
            Text("a"),
            Finish("stop"),
            Text("b", 1),
            Finish("length", 1),
            UsageReport(Usage(input_tokens=9, cached_tokens=8, output_tokens=2)),
        ]

    def test_a_recorded_one(self) -> None:
        """From the server that is in the corpus."""
        body = (
            b'{"choices":[{"text":" Paris.","index":0,"logprobs":null,"finish_reason":"length"}],"model":"smollm2",'
            b'"object":"text_completion","usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7,'
            b'"prompt_tokens_details":{"cached_tokens":4}}}'
        )
        usage = UsageReport(Usage(input_tokens=5, cached_tokens=4, output_tokens=2))
        assert CompletionsDecoder().decode_whole(body) == [Text(" Paris."), Finish("length"), usage]

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"null", b"\xff"])
    def test_no_answer(self, body: bytes) -> None:
        assert not CompletionsDecoder().decode_whole(body)

    def test_there_is_no_conversation(self) -> None:
        assert Answer(OPENAI_COMPLETIONS, CompletionsDecoder()).messages == []


# Anything at all

FIELDS = """
choices text delta index finish_reason error content message code type detail object usage stop logprobs reasoning
prompt_tokens
"""
WORDS = st.sampled_from(FIELDS.split())
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
    reader, decoder = CompletionsReader(Generation(streaming=True, choices=choices)), CompletionsDecoder()
    for event in events:
        try:
            signal = reader.read(event)
        except MalformedEvent:
            with pytest.raises(MalformedEvent):
                decoder.decode(event)
            continue
        failed = any(isinstance(item, Failed) for item in decoder.decode(event))
        assert failed is bool(signal & Signal.ERROR)
        if signal & (Signal.SETTLES | Signal.ERROR):
            assert OPENAI_COMPLETIONS.notable.search(encode(event.text, event=event.type))
