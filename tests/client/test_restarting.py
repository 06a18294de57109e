"""``after_output="restart"``: the typed client tells that an answer begins again, and what came before is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from client.asking import QUICK, Asking, Said, answer, chunk, piece
from unbroken.client import Client
from unbroken.core.events import Finish, Reasoning, Restarted, Text, ToolCallStart, TypedEvent
from unbroken.errors import ProviderError, StreamCut
from unbroken.lab import Fault, ScriptedAnswer, Upstream

Serve = Callable[..., Upstream]

RESTART = dataclasses.replace(QUICK, after_output="restart")
SEEN = 0.03
"""Seconds after which what was sent has been read: a reset discards what has not."""


def begin_again(asking: Asking, upstream: Upstream, **limits: Any) -> Said:
    return asking(upstream, client={"policy": dataclasses.replace(RESTART, **limits)})


def text_of(events: Sequence[TypedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def restarts_in(events: Sequence[TypedEvent]) -> list[int]:
    return [number for number, event in enumerate(events) if isinstance(event, Restarted)]


@pytest.mark.parametrize("kind", ["rst", "fin", "clean_end"])
def test_the_answer_is_that_of_one_attempt(asking: Asking, serve: Serve, kind: Any) -> None:
    fault = Fault(kind, "after_characters", offset=8, seconds=SEEN)
    upstream = serve(fault, answer=ScriptedAnswer(text="Blue, as light scatters.", reasoning=["Hm."]))
    said = begin_again(asking, upstream)
    [at] = restarts_in(said.events)
    assert said.events[at] == Restarted(2, 8)
    assert text_of(said.events[:at]) == "Blue, as"
    assert said.events[at + 1] == Reasoning("Hm.")
    assert text_of(said.events[at:]) == said.answer.text == "Blue, as light scatters."
    assert (said.answer.reasoning, said.answer.finish_reason, said.error) == ("Hm.", "stop", None)
    assert said.report.restarts == (Restarted(2, 8),)
    assert (said.report.replays, len(upstream.requests)) == (1, 2)


def test_what_had_come_stays_until_there_is_another_answer(asking: Asking, serve: Serve) -> None:
    faults = [Fault("fin", "after_token"), Fault("fin", "after_role"), Fault("status", "before_headers", status=401)]
    upstream = serve(*faults)
    said = begin_again(asking, upstream)
    assert isinstance(said.error, StreamCut)
    assert "another answer did not come" in str(said.error)
    assert said.error.text == said.answer.text == "Hello"
    assert restarts_in(said.events) == []
    assert said.report.restarts == ()
    assert len(upstream.requests) == 3


def test_when_the_replays_are_used_up_it_is_a_cut_with_what_the_last_attempt_brought(
    asking: Asking, serve: Serve
) -> None:
    faults = [Fault("fin", "after_characters", offset=offset) for offset in (15, 10, 5)]
    upstream = serve(*faults, answer=ScriptedAnswer(text="Blue, as light scatters."))
    said = begin_again(asking, upstream, replays=2)
    assert isinstance(said.error, StreamCut)
    assert said.error.text == "Blue,"
    assert said.report.restarts == (Restarted(2, 15), Restarted(3, 10))
    assert len(restarts_in(said.events)) == 2
    assert len(upstream.requests) == 3


def test_half_of_an_event_and_of_a_tool_call_is_gone_too(asking: Asking, serve: Serve) -> None:
    half = chunk({"content": "Let me "}) + chunk(piece(0, '{"city', id="call_1", name="weather")) + b'data: {"cho'
    whole = chunk({"content": "Sunny."}) + chunk({}, "stop") + b"data: [DONE]\n\n"
    said = begin_again(asking, serve(answer(half), answer(whole)))
    [at] = restarts_in(said.events)
    assert any(isinstance(event, ToolCallStart) for event in said.events[:at])
    assert said.answer.text == "Sunny."
    assert (said.answer.partial_tool_calls, said.answer.tool_calls) == ([], [])
    assert said.answer.messages == [{"role": "assistant", "content": "Sunny."}]
    assert said.events[at + 1 :][-1] == Finish("stop")


def test_an_error_of_the_provider_in_the_other_answer_is_one(asking: Asking, serve: Serve) -> None:
    failed = chunk({"content": "An"}) + b'data: {"error": {"message": "no more", "type": "server_error"}}\n\n'
    said = begin_again(asking, serve(Fault("fin", "after_token"), answer(failed)))
    assert isinstance(said.error, ProviderError)
    assert (said.error.partial.text, restarts_in(said.events)) == ("An", [1])


def test_a_held_answer_is_replayed_and_nobody_is_told(asking: Asking, serve: Serve) -> None:
    said = begin_again(asking, serve(Fault("fin", "after_token")), hold="answer")
    assert (said.answer.text, restarts_in(said.events), said.report.restarts) == ("Hello from the lab.", [], ())
    assert said.report.replays == 1


def test_complete_holds_the_answer(serve: Serve) -> None:
    upstream = serve(Fault("fin", "after_token"))
    with Client(base_url=upstream.url, api_key="none", policy=RESTART, _environ={}) as client:
        assert client.complete("Hi", model="m").text == "Hello from the lab."


def test_by_default_a_cut_is_a_cut(asking: Asking, serve: Serve) -> None:
    upstream = serve(Fault("fin", "after_token"))
    said = asking(upstream)
    assert isinstance(said.error, StreamCut)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "dialect", ["openai-responses", "anthropic-messages", "gemini", "interactions", "openai-completions"]
)
def test_every_dialect(asking: Asking, serve: Serve, dialect: str) -> None:
    upstream = serve(Fault("fin", "after_characters", offset=8), answer=ScriptedAnswer(text="Blue, as light scatters."))
    said = asking(upstream, client={"policy": RESTART, "dialect": dialect, "model": "m"})
    assert said.error is None
    assert said.answer.text == "Blue, as light scatters."
    assert said.report.restarts == (Restarted(2, 8),)
