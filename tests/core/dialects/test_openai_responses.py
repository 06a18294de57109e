"""The Responses dialect, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.corpus import recordings
from core.dialects.replaying import attempted
from unbroken.core.answer import Answer
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.dialects.openai_responses.decode import ResponsesDecoder
from unbroken.core.dialects.openai_responses.errors import ENDINGS
from unbroken.core.dialects.openai_responses.rule import ResponsesReader
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Signature,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.core.sse import Event, encode
from unbroken.errors import MalformedEvent

URL = "https://api.example.com/v1/responses"
STREAMS = recordings("openai_responses")


def event(kind: str, **fields: Any) -> Event:
    return Event(json.dumps({"type": kind, **fields}).encode(), kind)


def ask(**body: Any) -> Call:
    call = OPENAI_RESPONSES.recognise(Request("POST", URL, body=json.dumps({"model": "m", **body}).encode()))
    assert call is not None
    return call


def test_a_terminator_without_an_ending_is_withheld() -> None:
    [recording] = [each for each in STREAMS if each.name == "gateway-done-without-completed"]
    attempt, given_on = attempted(recording.call(OPENAI_RESPONSES, URL), [recording.body])
    assert attempt.failure is Failure.UNFINISHED
    assert given_on == recording.body.removesuffix(b"data: [DONE]\n\n")


# Recognising


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/responses",
            "/v1/responses/",
            "/responses",
            "/openai/v1/responses",
            "/openai/responses?api-version=2025-04-01-preview",
            "/api/v1/responses",
            "/backend-api/codex/responses",
        ],
    )
    def test_any_path_that_ends_so(self, path: str) -> None:
        body = b'{"model": "m", "input": "Hi", "stream": true}'
        call = OPENAI_RESPONSES.recognise(Request("POST", "http://host" + path, body=body))
        assert call == Call(OPENAI_RESPONSES, Generation(streaming=True))

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/v1/responses", b'{"input": "Hi"}'),
            ("GET", "/v1/responses/resp_1?stream=true", b""),
            ("DELETE", "/v1/responses/resp_1", b""),
            ("POST", "/v1/responses/resp_1/cancel", b'{"input": "Hi"}'),
            ("POST", "/v1/responses/compact", b'{"input": "Hi"}'),
            ("POST", "/v1/responses/input_tokens", b'{"input": "Hi"}'),
            ("POST", "/v1/chat/completions", b'{"input": "Hi"}'),
            ("POST", "/forms/1/responses", b'{"answers": []}'),
            ("POST", "/v1/responses", b"{}"),
            ("POST", "/v1/responses", b""),
            ("POST", "/v1/responses", b"[]"),
            ("POST", "/v1/responses", b"not JSON"),
            ("POST", "/v1/responses", b"[" * 100_000),
        ],
    )
    def test_nothing_else(self, method: str, path: str, body: bytes) -> None:
        assert OPENAI_RESPONSES.recognise(Request(method, "http://host" + path, body=body)) is None

    @pytest.mark.parametrize(
        ("stream", "streaming"), [(True, True), ("true", True), (False, False), (1, False), (None, False)]
    )
    def test_streaming(self, stream: object, streaming: bool) -> None:
        assert ask(stream=stream).streaming is streaming
        assert not ask().streaming

    @pytest.mark.parametrize(("count", "single"), [(b"0", False), (b"1", True)])
    def test_an_sdks_retry_gets_one_attempt(self, count: bytes, single: bool) -> None:
        request = Request("POST", URL, ((b"x-stainless-retry-count", count),), b'{"input": "Hi"}')
        call = OPENAI_RESPONSES.recognise(request)
        assert call is not None
        assert call.single_attempt is single

    @pytest.mark.parametrize(
        "body",
        [
            {"background": True},
            {"conversation": "conv_1"},
            {"conversation": {"id": "conv_1"}},
            {"prompt": {"id": "pmpt_1"}},
            {"agent_reference": {"name": "clerk"}},
            {"tools": [{"type": "function"}, {"type": "mcp", "server_label": "shop"}]},
            {"tools": [{"type": "code_interpreter"}]},
            {"tools": [{"type": "programmatic_tool_calling"}]},
            {"tools": [{"type": "computer_use_preview"}]},
            {"tools": [{"type": "computer"}]},
            {"tools": [{"type": "shell"}]},
            {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
            {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}]},
            {"tools": [{"type": "code_execution"}]},
            {"tools": [{"type": "something_new"}]},
            {"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]},
            {"tools": [{}]},
            {"tools": ["mcp"]},
            {"tools": {"type": "mcp"}},
            {"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]},
        ],
        ids=json.dumps,
    )
    def test_calls_that_act(self, body: dict[str, Any]) -> None:
        assert ask(**body).generation.acts

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"background": False, "conversation": None, "prompt": None, "tools": None},
            {"previous_response_id": "resp_1"},
            {"store": True},
            {"tools": []},
            {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]},
            {"tools": [{"type": "web_search"}, {"type": "web_search_2025_08_26"}]},
            {"tools": [{"type": "web_search_preview"}, {"type": "web_search_preview_2025_03_11"}]},
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}, {"type": "tool_search"}]},
            {"tools": [{"type": "image_generation"}]},
            {"tools": [{"type": "local_shell"}, {"type": "apply_patch"}]},
            {"tools": [{"type": "shell", "environment": {"type": "local"}}]},
            {"tools": [{"type": "namespace", "name": "crm", "tools": [{"type": "function"}]}]},
            {"tools": [{"type": "x_search"}]},
            {"input": [{"role": "user", "content": "mcp"}, {"type": "additional_tools", "tools": []}]},
        ],
        ids=json.dumps,
    )
    def test_calls_that_do_not(self, body: dict[str, Any]) -> None:
        assert not ask(**body).generation.acts


# What an event means, case by case

EMPTY_PART = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


class TestMeanings:
    @pytest.mark.parametrize(
        "silent",
        [
            Event(b""),
            Event(b" "),
            event("response.created", response={"status": "in_progress", "error": None, "tools": [{"type": "mcp"}]}),
            event("response.queued"),
            event("response.in_progress"),
            event("keepalive", sequence_number=7),
            event("response.keep_alive"),
            event("ping"),
            Event(b"{}", "ping"),
            event("codex.rate_limits", rate_limits={"limit_reached": True}),
            event("response.output_item.added", item={"type": "reasoning", "id": "rs_1", "summary": []}),
            event("response.output_item.added", item={"type": "reasoning", "encrypted_content": "gAAAA"}),
            event("response.output_item.added", item={"type": "message", "content": [], "role": "assistant"}),
            event("response.content_part.added", output_index=1, part=EMPTY_PART),
            event("response.content_part.added", part={"type": "refusal", "refusal": ""}),
            event("response.reasoning_summary_part.added", summary_index=1, part={"type": "summary_text", "text": ""}),
            event("response.reasoning_part.added", part={"type": "reasoning_text", "text": ""}),
            event("response.output_text.delta", delta="", item_id="msg_1", output_index=2, obfuscation="x1"),
            event("response.output_text.done", text="", logprobs=[]),
            event("response.content_part.done", part=EMPTY_PART),
            event("response.audio.done", response_id="resp_1"),
        ],
        ids=lambda each: each.text,
    )
    def test_silent(self, silent: Event) -> None:
        assert ResponsesReader(Generation(streaming=True)).read(silent) == Signal.SILENT
        assert not ResponsesDecoder().decode(silent)

    @pytest.mark.parametrize(
        "output",
        [
            event("response.output_text.delta", delta="Hi"),
            event("response.output_text.delta", delta=" "),
            event("response.output_text.delta", delta="", logprobs=[{"token": "\ufffd"}]),
            event("response.refusal.delta", delta="I"),
            event("response.reasoning_text.delta", delta="Hm"),
            event("response.reasoning_summary_text.delta", delta="Hm"),
            event("response.function_call_arguments.delta", delta="{"),
            event("response.custom_tool_call_input.delta", delta="SELECT"),
            event("response.mcp_call_arguments.delta", delta="{}"),
            event("response.code_interpreter_call_code.delta", delta="print"),
            event("response.audio.delta", delta="UklGRg=="),
            event("response.audio.transcript.delta", delta="Hi"),
            event("response.shell_call_output_content.delta", delta={"stdout": "hi"}),
            event("response.something_new.delta", delta="", image="UklGRg=="),
            event("response.output_text.done", text="Hi"),
            event("response.content_part.added", part={"type": "output_text", "text": "Hi"}),
            event("response.content_part.added", part={"type": "output_text", "text": "", "image_url": "data:"}),
            event("response.output_item.added", item={"type": "function_call", "name": "f"}),
            event("response.output_item.added", item={"type": "web_search_call"}),
            event("response.output_item.added", item={"type": "compaction"}),
            event("response.output_item.added", item={"type": "something_new"}),
            event("response.output_item.added", item={"type": ["message"]}),
            event("response.output_item.added", item="message"),
            event("response.output_item.added"),
            event("response.output_item.added", item={"type": "message", "content": [{"type": "x", "text": "Hi"}]}),
            event("response.output_item.done", item={"type": "reasoning", "summary": []}),
            event("response.output_item.done"),
            event("response.web_search_call.in_progress", item_id="ws_1"),
            event("response.mcp_call.failed", item_id="mcp_1"),
            event("response.image_generation_call.partial_image", partial_image_b64="UklGRg=="),
            event("response.output_text.annotation.added", annotation={"type": "url_citation"}),
            event("response.something_new"),
            event("something.new"),
            Event(b'{"a": 1}'),
            Event(b"{}"),
            Event(b"[]"),
            Event(b"42"),
            Event(b"null"),
        ],
        ids=lambda each: each.text,
    )
    def test_output_and_whatever_is_not_known(self, output: Event) -> None:
        assert ResponsesReader(Generation(streaming=True)).read(output) in (Signal.REASONING, Signal.OUTPUT)

    @pytest.mark.parametrize(
        ("last", "reason"),
        [
            (event("response.completed", response={"status": "completed"}), "completed"),
            (event("response.completed"), "completed"),
            (event("response.completed", response={"status": "in_progress"}), "in_progress"),
            (event("response.completed", response="gone"), "completed"),
            (Event(b'{"response": {}}', "response.completed"), "completed"),
            (event("response.incomplete"), "incomplete"),
            (event("response.incomplete", response={"incomplete_details": {"reason": "steered"}}), "steered"),
            (event("response.completed", response={"status": "incomplete", "incomplete_details": 7}), "incomplete"),
            (event("response.done"), "completed"),
        ],
        ids=lambda each: each.text if isinstance(each, Event) else "",
    )
    def test_endings(self, last: Event, reason: str) -> None:
        assert ResponsesReader(Generation(streaming=True)).read(last) == Signal.SETTLES | Signal.ENDS
        assert ResponsesDecoder().decode(last) == [Finish(reason)]
        assert OPENAI_RESPONSES.notable.search(encode(last.text, event=last.type))

    @pytest.mark.parametrize(
        "data", [b"{", b"pong", b"{'a': 1}", b"[" * 100_000], ids=["cut", "word", "quotes", "deep"]
    )
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            ResponsesReader(Generation(streaming=True)).read(Event(data))
        with pytest.raises(MalformedEvent, match="not JSON"):
            ResponsesDecoder().decode(Event(data))

    def test_invalid_utf8_inside_json_is_not_malformed(self) -> None:
        broken = Event(b'{"type":"response.output_text.delta","delta":"Z\xc3rich"}')
        assert ResponsesReader(Generation(streaming=True)).read(broken) == Signal.OUTPUT
        assert ResponsesDecoder().decode(broken) == [Text("Z\ufffdrich")]


class TestErrors:
    """In the stream, and as the body of an error status."""

    @pytest.mark.parametrize(
        ("name", "error", "kind"),
        [
            ("error", {"type": "error", "error": {"type": "server_error", "code": None}}, "server_error"),
            ("error", {"type": "error", "code": "rate_limit_exceeded", "message": "m"}, "rate_limit_exceeded"),
            ("error", {"type": "server_error", "message": "m"}, "server_error"),
            ("error", {"type": "error", "error": {"code": "server_is_overloaded"}}, "server_is_overloaded"),
            ("error", {"type": "error", "code": None, "message": "Internal server error"}, ""),
            ("error", {"type": "error", "status": 503, "message": "m"}, "503"),
            ("message", {"type": "error", "error": {"code": "server_error"}}, "server_error"),
            ("message", {"type": "response.error", "error": {"code": "server_error"}}, "server_error"),
            ("message", {"error": {"code": 500, "type": "server_error"}}, "server_error"),
            ("message", {"code": "The service is unavailable", "error": "upstream timed out"}, ""),
            ("message", {"object": "error", "type": "InternalServerError", "code": 500}, "InternalServerError"),
            ("message", {"detail": "Service Unavailable"}, ""),
            ("message", {"type": "response.failed", "response": {"error": {"code": "server_error"}}}, "server_error"),
            ("message", {"type": "response.failed", "error": {"code": "server_error"}}, "server_error"),
            ("response.failed", {"response": {"error": {"code": "vector_store_timeout"}}}, "vector_store_timeout"),
            ("error", {"type": "response.failed", "response": {"error": {"code": "server_error"}}}, "server_error"),
            ("message", {"type": "response.completed", "error": {"code": "server_error"}}, "server_error"),
            ("message", {"type": "response.output_text.delta", "error": {"code": 502}}, "502"),
        ],
        ids=str,
    )
    def test_transient(self, name: str, error: dict[str, Any], kind: str) -> None:
        self.check(name, error, kind, transient=True)

    @pytest.mark.parametrize(
        ("name", "error", "kind"),
        [
            ("error", {"type": "error", "error": {"type": "insufficient_quota"}}, "insufficient_quota"),
            ("error", {"type": "error", "error": {"type": "usage_limit_reached"}}, "usage_limit_reached"),
            ("error", {"type": "error", "code": "ERR", "message": "m"}, "ERR"),
            ("error", {"type": "error"}, ""),
            ("message", {"type": "response.failed"}, "failed"),
            ("message", {"type": "response.failed", "response": {"error": None}}, "failed"),
            ("message", {"type": "response.cancelled"}, "cancelled"),
            ("message", {"type": "response.completed", "response": {"status": "failed"}}, "failed"),
            ("message", {"type": "response.done", "response": {"status": "cancelled"}}, "cancelled"),
            *(
                ("message", {"type": "response.failed", "response": {"error": {"code": code}}}, code)
                for code in (
                    "invalid_prompt",
                    "context_length_exceeded",
                    "bio_policy",
                    "data_residency_mismatch",
                    "misalignment_policy_violation",
                    "invalid_image_url",
                    "image_too_large",
                    "image_content_policy_violation",
                    "failed_to_download_image",
                    "insufficient_quota",
                )
            ),
        ],
        ids=str,
    )
    def test_permanent(self, name: str, error: dict[str, Any], kind: str) -> None:
        self.check(name, error, kind, transient=False)

    @staticmethod
    def check(name: str, error: dict[str, Any], kind: str, *, transient: bool) -> None:
        failed = Event(json.dumps(error).encode(), name)
        signal = Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        assert ResponsesReader(Generation(streaming=True)).read(failed) == signal
        assert OPENAI_RESPONSES.notable.search(encode(failed.text, event=name))
        [decoded] = ResponsesDecoder().decode(failed)
        assert isinstance(decoded, Failed)
        assert (decoded.kind, decoded.transient) == (kind, transient)

    def test_what_a_failed_response_had_cost_is_told(self) -> None:
        response = {"status": "failed", "error": {"code": "server_error"}, "usage": {"input_tokens": 3}}
        usage, failed = ResponsesDecoder().decode(event("response.failed", response=response))
        assert usage == UsageReport(Usage(input_tokens=3))
        assert isinstance(failed, Failed)

    @pytest.mark.parametrize(
        ("status", "body", "transient"),
        [
            (429, b"", True),
            (500, b"<html>", True),
            (503, b"\xff\xfe", True),
            (529, b"[]", True),
            (429, b'{"error": {"code": "rate_limit_exceeded"}}', True),
            (429, b'{"error": {"type": "insufficient_quota", "code": "credit_balance_exhausted"}}', False),
            (401, b'{"error": {"message": "bad key"}}', False),
            (400, b'{"error": {"code": "context_length_exceeded"}}', False),
            (400, b"[" * 100_000, False),
        ],
    )
    def test_refusals(self, status: int, body: bytes, transient: bool) -> None:
        refusal = OPENAI_RESPONSES.read_error(status, body)
        assert refusal.transient is transient
        assert refusal.message


# Items


def added(item: dict[str, Any], index: int | None = None) -> Event:
    return event("response.output_item.added", item=item, **({} if index is None else {"output_index": index}))


def done(item: dict[str, Any], index: int | None = None) -> Event:
    return event("response.output_item.done", item=item, **({} if index is None else {"output_index": index}))


def call(arguments: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments, **fields}


def message(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **fields}


class TestToolCalls:
    def test_arguments_that_came_only_at_the_end(self) -> None:
        decoder = ResponsesDecoder()
        assert decoder.decode(added(call(id="fc_1"), 0)) == [ToolCallStart(0, "call_1", "f")]
        assert decoder.decode(done(call("{}", id="fc_1"), 0)) == [ToolCallArguments(0, "{}")]

    def test_pieces_of_a_call_that_was_not_announced_are_told_with_it(self) -> None:
        decoder = ResponsesDecoder()
        assert not decoder.decode(event("response.function_call_arguments.delta", delta="{}", output_index=3))
        assert decoder.decode(done(call("{}"), 3)) == [ToolCallStart(3, "call_1", "f"), ToolCallArguments(3, "{}")]

    def test_calls_without_indexes_are_told_apart(self) -> None:
        """As llama.cpp sends them: the item has no id, its pieces name the call."""
        decoder = ResponsesDecoder()
        assert decoder.decode(added(call(call_id="fc_a"))) == [ToolCallStart(0, "fc_a", "f")]
        assert decoder.decode(added(call(call_id="fc_b"))) == [ToolCallStart(1, "fc_b", "f")]
        piece = event("response.function_call_arguments.delta", delta="{}", item_id="fc_a")
        assert decoder.decode(piece) == [ToolCallArguments(0, "{}")]
        assert decoder.decode(done(call("[]", call_id="fc_b"))) == [ToolCallArguments(1, "[]")]
        assert not decoder.decode(done(call("{}", call_id="fc_a")))

    def test_announced_twice_begun_once(self) -> None:
        decoder = ResponsesDecoder()
        decoder.decode(added(call(), 0))
        assert not decoder.decode(added(call(), 0))

    def test_calls_under_one_index_are_told_apart(self) -> None:
        decoder = ResponsesDecoder()
        assert decoder.decode(done(call("{}", call_id="a"), 0))[0] == ToolCallStart(0, "a", "f")
        assert decoder.decode(added(call(call_id="b", id="fc_b"), 0)) == [ToolCallStart(1, "b", "f")]
        piece = event("response.function_call_arguments.delta", delta="[]", item_id="fc_b", output_index=0)
        assert decoder.decode(piece) == [ToolCallArguments(1, "[]")]

    def test_calls_without_any_name(self) -> None:
        decoder = ResponsesDecoder()
        assert decoder.decode(added({"type": "function_call", "name": "f"})) == [ToolCallStart(0, "", "f")]
        piece = event("response.function_call_arguments.delta", delta="{}")
        assert decoder.decode(piece) == [ToolCallArguments(0, "{}")]
        assert not decoder.decode(done({"type": "function_call", "name": "f", "arguments": "{}"}))

    def test_a_custom_tools_text_becomes_a_json_string(self) -> None:
        decoder = ResponsesDecoder()
        item = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": 'a"b\n'}
        assert decoder.decode(done(item, 0)) == [ToolCallStart(0, "c", "sql"), ToolCallArguments(0, '"a\\"b\\n"')]

    def test_an_empty_call_has_no_arguments(self) -> None:
        assert ResponsesDecoder().decode(done({"type": "function_call"}, 0)) == [ToolCallStart(0, "", "")]


class TestItems:
    def test_text_that_came_in_pieces_is_not_repeated(self) -> None:
        decoder = ResponsesDecoder()
        decoder.decode(event("response.output_text.delta", delta="one", item_id="msg_1", output_index=0))
        assert not decoder.decode(done(message("one", id="msg_1"), 0))
        assert decoder.decode(done(message("two", id="msg_2"), 1)) == [Text("two")]

    def test_messages_that_come_at_the_same_time(self) -> None:
        decoder = ResponsesDecoder()
        for index in (0, 1):
            decoder.decode(event("response.output_text.delta", delta="x", item_id=f"msg_{index}", output_index=index))
        for index in (0, 1):
            assert not decoder.decode(done(message("x", id=f"msg_{index}"), index))

    def test_an_ending_repeats_nothing_even_if_no_item_was_finished(self) -> None:
        decoder = ResponsesDecoder()
        decoder.decode(event("response.output_text.delta", delta="both"))
        ending = event("response.completed", response={"output": [message("bo"), message("th"), call("{}")]})
        *calls, finish = decoder.decode(ending)
        assert calls == [ToolCallStart(2, "call_1", "f"), ToolCallArguments(2, "{}")]
        assert finish == Finish("completed")
        assert [item["type"] for item in Answer(OPENAI_RESPONSES, decoder).messages] == [
            "message",
            "message",
            "function_call",
        ]

    def test_a_message_that_was_cut_goes_on_as_text(self) -> None:
        decoder = ResponsesDecoder()
        decoder.decode(done({"type": "reasoning", "id": "rs_1", "summary": []}, 0))
        for piece in ("Par", "is"):
            decoder.decode(event("response.output_text.delta", delta=piece, output_index=1))
        assert Answer(OPENAI_RESPONSES, decoder).messages == [{"role": "assistant", "content": "Paris"}]

    def test_items_are_kept_as_they_came(self) -> None:
        reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA", "status": None}
        decoder = ResponsesDecoder()
        assert decoder.decode(done(reasoning, 0)) == [Signature("gAAAA")]
        decoder.decode(done(call("{}", id="fc_1", status="completed"), 1))
        assert Answer(OPENAI_RESPONSES, decoder).messages == []  # no call is complete before the end
        decoder.decode(event("response.completed"))
        assert Answer(OPENAI_RESPONSES, decoder).messages == [reasoning, call("{}", id="fc_1", status="completed")]

    def test_reasoning_in_plain_is_told_rather_than_its_summary(self) -> None:
        item = {"type": "reasoning", "content": [{"text": "plain"}, {"text": ""}], "summary": [{"text": "short"}]}
        assert ResponsesDecoder().decode(done(item)) == [Reasoning("plain")]

    def test_nothing_came(self) -> None:
        assert Answer(OPENAI_RESPONSES, ResponsesDecoder()).messages == []


class TestWholeAnswers:
    def test_an_answer(self) -> None:
        body = {
            "object": "response",
            "status": "incomplete",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
                {"content": [{"type": "output_text", "text": "Hi"}]},  # xAI
                {"type": "message", "content": [{"type": "refusal", "refusal": "No"}]},
                call("{}"),
            ],
            "usage": {"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}},
        }
        decoder = ResponsesDecoder()
        assert decoder.decode_whole(json.dumps(body).encode()) == [
            Reasoning("Hm"),
            Text("Hi"),
            Refusal("No"),
            ToolCallStart(3, "call_1", "f"),
            ToolCallArguments(3, "{}"),
            UsageReport(Usage(input_tokens=1, output_tokens=2, reasoning_tokens=1)),
            Finish("max_output_tokens"),
        ]
        assert Answer(OPENAI_RESPONSES, decoder).messages == body["output"][:-1]  # the limit may have cut the call

    def test_a_response_in_the_background_has_not_finished(self) -> None:
        assert ResponsesDecoder().decode_whole(b'{"object":"response","status":"queued","output":[]}') == [
            Finish("queued")
        ]

    def test_a_failed_response(self) -> None:
        body = {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}}
        assert ResponsesDecoder().decode_whole(json.dumps(body).encode()) == [Failed("m", "server_error", True)]

    def test_an_error_with_status_200(self) -> None:
        [failed] = ResponsesDecoder().decode_whole(b'{"error": {"code": 500}}')
        assert failed == Failed("the provider reported an error", "500", transient=True)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"\xff", b'{"choices": []}'])
    def test_no_answer(self, body: bytes) -> None:
        assert not ResponsesDecoder().decode_whole(body)


# Anything at all

KINDS = st.sampled_from(
    [
        *ENDINGS,
        "error",
        "response.error",
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.content_part.done",
    ]
)
FIELDS = """
type response status error code message item delta part output output_index item_id call_id id name arguments input
content summary text usage detail object incomplete_details reason function_call custom_tool_call reasoning failed
encrypted_content input_tokens input_tokens_details cancelled completed
"""
WORDS = st.sampled_from(FIELDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
TYPED = st.builds(lambda fields, kind: {**fields, "type": kind}, st.dictionaries(WORDS, JSON, max_size=4), KINDS)
EVENTS = st.builds(
    Event,
    (JSON | TYPED).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    st.sampled_from(["message", "ping"]) | KINDS,
)


@given(st.lists(EVENTS, max_size=5))
@example([Event(b'{"type": []}', "error")])
def test_nothing_that_a_server_may_send_breaks_the_reader_or_the_decoder(events: list[Event]) -> None:
    reader, decoder = ResponsesReader(Generation(streaming=True)), ResponsesDecoder()
    for each in events:
        try:
            signal = reader.read(each)
        except MalformedEvent:
            with pytest.raises(MalformedEvent):
                decoder.decode(each)
            continue
        decoded = decoder.decode(each)
        assert any(isinstance(item, Failed) for item in decoded) is bool(signal & Signal.ERROR)
        assert any(isinstance(item, Finish) for item in decoded) is bool(signal & Signal.SETTLES)
        if signal & (Signal.SETTLES | Signal.ERROR):
            assert OPENAI_RESPONSES.notable.search(encode(each.text, event=each.type))
    json.dumps(Answer(OPENAI_RESPONSES, decoder).messages)


@given(JSON)
def test_nor_the_decoder_of_whole_answers(body: object) -> None:
    ResponsesDecoder().decode_whole(json.dumps(body).encode())
