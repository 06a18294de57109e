"""Typed events, and the answer that they add up to."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
import pytest

from client.asking import DONE, JSON, Asking, answer, chunk, event, piece
from unbroken.client import Answer, AsyncClient, AsyncTurnStream, Client, PartialToolCall, TurnStream
from unbroken.core.events import (
    Finish,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.core.policy import Policy
from unbroken.errors import ProviderError, StreamCut, UnexpectedResponse
from unbroken.lab import Fault, ScriptedAnswer, Upstream

Serve = Callable[..., Upstream]


def test_events_come_in_order_and_add_up(asking: Asking, serve: Serve) -> None:
    said = asking(serve(answer=ScriptedAnswer(reasoning=("Hm", "m."), text=("Hel", "lo"))))
    assert said.error is None
    assert said.events == [
        Reasoning("Hm"),
        Reasoning("m."),
        Text("Hel"),
        Text("lo"),
        Finish("stop"),
        UsageReport(Usage(input_tokens=7, output_tokens=3)),
    ]
    assert (said.answer.text, said.answer.reasoning, said.answer.finish_reason) == ("Hello", "Hmm.", "stop")
    assert said.answer.usage == Usage(input_tokens=7, output_tokens=3)
    assert said.answer.usage.total == 10
    assert said.answer.tool_calls == []
    assert said.answer.messages == [{"role": "assistant", "content": "Hello", "reasoning_content": "Hmm."}]


def test_a_refusal_is_told_apart_from_text(asking: Asking, serve: Serve) -> None:
    said = asking(serve(answer(chunk({"refusal": "I "}), chunk({"refusal": "won't."}), chunk({}, "stop"), DONE)))
    assert said.events == [Refusal("I "), Refusal("won't."), Finish("stop")]
    assert (said.answer.refusal, said.answer.text) == ("I won't.", "")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_under_either_name(asking: Asking, serve: Serve, field: str) -> None:
    said = asking(serve(answer(chunk({field: "Hm."}), chunk({"content": "Yes"}), chunk({}, "stop"), DONE)))
    assert (said.answer.reasoning, said.answer.text) == ("Hm.", "Yes")


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(input_tokens=100, cached_tokens=64, output_tokens=20, reasoning_tokens=5),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_cache_hit_tokens": 80,
                "prompt_cache_miss_tokens": 20,
            },
            Usage(input_tokens=100, cached_tokens=80, output_tokens=20),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": None},
            Usage(input_tokens=100, output_tokens=20),
        ),
        ({}, Usage()),
    ],
    ids=["openai", "deepseek", "plain", "nothing"],
)
def test_usage_by_any_providers_fields(asking: Asking, serve: Serve, fields: dict[str, Any], usage: Usage) -> None:
    said = asking(serve(answer=ScriptedAnswer(usage=fields)))
    assert said.answer.usage == usage


def test_what_is_known_is_known_at_once(serve: Serve) -> None:
    upstream = serve(Fault("stall", "after_token"))
    with Client(base_url=upstream.url, _environ={}) as client, client.stream("Hi") as turn:
        assert next(turn) == Text("Hello")
        assert (turn.text, turn.reasoning, turn.finish_reason, turn.usage) == ("Hello", "", None, Usage())
        assert turn.tool_calls == turn.partial_tool_calls == []


def test_what_is_known_is_known_at_once_to_the_asynchronous_client(serve: Serve) -> None:
    upstream = serve(Fault("stall", "after_token"))

    async def main() -> None:
        async with AsyncClient(base_url=upstream.url, _environ={}) as client, client.stream("Hi") as turn:
            assert await anext(turn) == Text("Hello")
            assert (turn.text, turn.reasoning, turn.finish_reason, turn.usage) == ("Hello", "", None, Usage())
            assert turn.tool_calls == turn.partial_tool_calls == []

    anyio.run(main)


@pytest.mark.parametrize(("blocking", "twin"), [(Client, AsyncClient), (TurnStream, AsyncTurnStream)])
def test_the_twins_have_the_same_names(blocking: type, twin: type) -> None:
    def names(kind: type) -> set[str]:
        return {name.replace("aclose", "close") for name in vars(kind) if not name.startswith("_")}

    assert names(blocking) == names(twin)


class TestSeveralChoices:
    BLOCKS = (
        chunk({"content": "Hello"}),
        chunk({"content": "Bonjour"}, index=1),
        chunk({}, "stop"),
        chunk({"content": " !"}, index=1),
        chunk({}, "length", index=1),
        DONE,
    )

    def test_are_told_apart(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(*self.BLOCKS)), n=2)
        assert said.error is None
        assert said.events[1] == Text("Bonjour", 1)
        assert said.events[-1] == Finish("length", 1)
        assert (said.answer.text, said.answer.text_of(1), said.answer.text_of(2)) == ("Hello", "Bonjour !", "")
        assert said.answer.finish_reason == "stop"

    @pytest.mark.parametrize("finished", [0, 1])
    def test_one_that_finished_does_not_hide_that_the_other_was_cut(
        self, asking: Asking, serve: Serve, finished: int
    ) -> None:
        blocks = [chunk({"content": "Hello"}), chunk({"content": "Bonjour"}, index=1)]
        said = asking(serve(answer(*blocks, chunk({}, "stop", finished), DONE)), n=2)
        # The terminator proves nothing about a choice that never ended.
        assert isinstance(said.error, StreamCut)

    def test_an_error_after_one_has_finished_is_an_error(self, asking: Asking, serve: Serve) -> None:
        said = asking(
            serve(answer(*self.BLOCKS[:4], event({"error": {"type": "server_error", "message": "No."}}))), n=2
        )
        assert isinstance(said.error, ProviderError)
        assert said.answer.text_of(1) == "Bonjour !"


class TestAToolCall:
    CALL = (
        chunk(piece(0, id="call_1", name="look")),
        chunk(piece(0, '{"where": ')),
        chunk(piece(0, '"there"}')),
    )
    ARGUMENTS = '{"where": "there"}'
    STARTED = (
        ToolCallStart(0, "call_1", "look"),
        ToolCallArguments(0, '{"where": '),
        ToolCallArguments(0, '"there"}'),
    )

    def test_is_offered_once_the_turn_has_settled(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(*self.CALL, chunk({}, "tool_calls"), DONE)))
        call = ToolCall(0, "call_1", "look", self.ARGUMENTS, {"where": "there"})
        assert said.events == [*self.STARTED, Finish("tool_calls"), call]
        assert said.answer.tool_calls == [call]
        assert said.answer.partial_tool_calls == []
        assert said.answer.messages[0] == {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": self.ARGUMENTS}}
            ],
        }

    def test_is_offered_once(self, asking: Asking, serve: Serve) -> None:
        usage = event({"choices": [], "usage": {"prompt_tokens": 1}})
        said = asking(serve(answer(*self.CALL, chunk({}, "tool_calls"), usage, usage, DONE)))
        assert len([got for got in said.events if isinstance(got, ToolCall)]) == 1

    def test_is_kept_apart_from_another(self, asking: Asking, serve: Serve) -> None:
        blocks = [
            chunk(piece(0, id="call_1", name="look")),
            chunk(piece(1, id="call_2", name="listen")),
            chunk(piece(1, '{"to":')),
            chunk(piece(0, "{}")),
            chunk(piece(1, " 1}")),
            chunk({}, "tool_calls"),
            DONE,
        ]
        said = asking(serve(answer(*blocks)))
        assert [(call.name, call.parsed) for call in said.answer.tool_calls] == [("look", {}), ("listen", {"to": 1})]

    def test_without_arguments_has_none(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(self.CALL[0], chunk({}, "tool_calls"), DONE)))
        assert said.answer.tool_calls == [ToolCall(0, "call_1", "look", "{}", {})]

    @pytest.mark.parametrize("how_far", [1, 2, 3])
    def test_that_was_cut_is_never_offered(self, asking: Asking, serve: Serve, how_far: int) -> None:
        """Not even where what came of its arguments would parse: nobody said that it was all."""
        said = asking(serve(answer(*self.CALL[:how_far])))
        assert isinstance(said.error, StreamCut)
        assert said.events == [*self.STARTED[:how_far]]
        assert said.answer.tool_calls == []
        partial = said.error.partial
        assert isinstance(partial, Answer)
        arguments = "".join(got.arguments for got in self.STARTED[1:how_far] if isinstance(got, ToolCallArguments))
        assert partial.partial_tool_calls == [PartialToolCall(0, "call_1", "look", arguments)]

    @pytest.mark.parametrize("how_far", [1, 2])
    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    def test_that_was_broken_off_is_never_offered(
        self, asking: Asking, serve: Serve, how_far: int, reason: str
    ) -> None:
        """A limit may fall before the first of its arguments: then they are not empty, they are missing."""
        said = asking(serve(answer(*self.CALL[:how_far], chunk({}, reason), DONE)))
        assert said.error is None
        assert said.answer.finish_reason == reason
        assert said.answer.tool_calls == []
        assert [call.name for call in said.answer.partial_tool_calls] == ["look"]
        assert "tool_calls" not in str(said.answer.messages)

    def test_is_not_offered_where_the_answer_was_broken_off(self, asking: Asking, serve: Serve) -> None:
        later = chunk(piece(1, '{"to', id="call_2", name="listen"))
        said = asking(serve(answer(*self.CALL, later, chunk({}, "length"), DONE)))
        assert said.answer.tool_calls == []
        assert [call.name for call in said.answer.partial_tool_calls] == ["look", "listen"]

    def test_whose_arguments_do_not_parse_is_not_offered(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(self.CALL[0], chunk(piece(0, "{where")), chunk({}, "tool_calls"), DONE)))
        assert said.error is None
        assert said.answer.tool_calls == []
        assert said.answer.partial_tool_calls == [PartialToolCall(0, "call_1", "look", "{where")]

    def test_of_several_choices(self, asking: Asking, serve: Serve) -> None:
        blocks = [
            chunk(piece(0, "{}", id="call_1", name="look")),
            chunk(piece(0, "{}", id="call_2", name="listen"), index=1),
            chunk({}, "tool_calls"),
            chunk({}, "tool_calls", index=1),
            DONE,
        ]
        said = asking(serve(answer(*blocks)), n=2)
        assert [(call.name, call.choice) for call in said.answer.tool_calls] == [("look", 0), ("listen", 1)]
        assert [call["id"] for call in said.answer.messages[0]["tool_calls"]] == ["call_1"]


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
MESSAGE = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm.", "tool_calls": [CALL]}
DOCUMENT = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}


class TestADocumentInsteadOfAStream:
    @pytest.mark.parametrize("options", [{}, {"stream": False}], ids=["not asked for", "asked for"])
    def test_yields_the_answer(self, asking: Asking, serve: Serve, options: dict[str, Any]) -> None:
        said = asking(serve(answer(json.dumps(DOCUMENT).encode(), headers=JSON)), **options)
        assert said.error is None
        assert (said.answer.text, said.answer.reasoning, said.answer.finish_reason) == ("Hello", "Hm.", "tool_calls")
        assert [(call.name, call.parsed) for call in said.answer.tool_calls] == [("look", {"a": 1})]
        assert said.answer.usage == Usage(input_tokens=7, output_tokens=3)

    @pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"choices": []}', b'{"choices": [', b"Hello"])
    def test_that_is_no_completion_is_unexpected(self, asking: Asking, serve: Serve, body: bytes) -> None:
        said = asking(serve(answer(body, headers=JSON)))
        assert isinstance(said.error, UnexpectedResponse)
        assert said.error.status == 200
        assert said.error.report == said.report


def test_an_empty_answer_is_an_answer(asking: Asking, serve: Serve) -> None:
    said = asking(serve(answer(chunk({"role": "assistant"}), chunk({}, "stop"), DONE)))
    assert said.error is None
    assert (said.answer.text, said.answer.finish_reason) == ("", "stop")
    assert said.answer.messages == []


def test_a_long_answer_adds_up(asking: Asking, serve: Serve) -> None:
    tokens = [f"token {number} " for number in range(3000)]
    said = asking(serve(answer=ScriptedAnswer(text=tokens)))
    assert said.answer.text == "".join(tokens)
    assert [got.text for got in said.events if isinstance(got, Text)] == tokens


def test_limits_may_be_infinite(asking: Asking) -> None:
    endless = Policy(
        idle_timeout=inf,
        first_output_timeout=inf,
        connect_timeout=inf,
        give_up_after=inf,
        ping_interval=inf,
        ping_timeout=inf,
    )
    with Upstream(answer=ScriptedAnswer(text="Hello")) as upstream:
        said = asking(upstream, client={"policy": endless})
    assert said.error is None
    assert said.answer.text == "Hello"
