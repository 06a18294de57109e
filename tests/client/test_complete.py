"""``complete``: ask, wait, and return the answer, whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from client.asking import KEY, QUICK
from unbroken.client import Answer, AsyncClient, Client
from unbroken.core.failures import Phase
from unbroken.errors import ProviderError, StreamCut, UsageError
from unbroken.lab import Fault, ScriptedAnswer, Upstream

Serve = Callable[..., Upstream]
Completing = Callable[..., Answer]


def complete(upstream: Upstream, *args: Any, **options: Any) -> Answer:
    with Client(base_url=upstream.url, api_key=KEY, policy=QUICK, _environ={}) as client:
        return client.complete(*args, **options)


def _on(backend: str) -> Completing:
    def run(upstream: Upstream, *args: Any, **options: Any) -> Answer:
        async def main() -> Answer:
            async with AsyncClient(base_url=upstream.url, api_key=KEY, policy=QUICK, _environ={}) as client:
                return await client.complete(*args, **options)

        return anyio.run(main, backend=backend)

    return run


@pytest.fixture(params=[complete, _on("asyncio"), _on("trio")], ids=["client", "asyncio", "trio"])
def completing(request: pytest.FixtureRequest) -> Completing:
    chosen: Completing = request.param
    return chosen


def test_an_answer(completing: Completing, serve: Serve) -> None:
    upstream = serve(answer=ScriptedAnswer(text="Blue.", reasoning=["Hm."]))
    answer = completing(upstream, "Why?", model="m", temperature=0)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Blue.", "Hm.", "stop")
    assert b'"temperature":0' in upstream.requests[0].body


@pytest.mark.parametrize("point", ["before_headers", "after_role", "after_token"])
def test_it_is_replayed_wherever_it_was_cut(completing: Completing, serve: Serve, point: Any) -> None:
    upstream = serve(Fault("fin", point))
    assert completing(upstream, "Hi").text == "Hello from the lab."
    assert len(upstream.requests) == 2


def test_whatever_the_policy_says(completing: Completing, serve: Serve) -> None:
    upstream = serve(Fault("fin", "after_token"))
    assert completing(upstream, "Hi", policy=dataclasses.replace(QUICK, replays=1)).text == "Hello from the lab."
    assert len(upstream.requests) == 2


def test_unless_the_caller_wants_less_held(completing: Completing, serve: Serve) -> None:
    upstream = serve(Fault("fin", "after_token"))
    with pytest.raises(StreamCut) as cut:
        completing(upstream, "Hi", hold="prelude")
    assert (cut.value.text, cut.value.held) == ("Hello", b"")
    assert len(upstream.requests) == 1


def test_a_choice_that_is_none_is_a_mistake(completing: Completing, serve: Serve) -> None:
    with pytest.raises(UsageError, match="prelude, reasoning or answer"):
        completing(serve(), "Hi", hold="all")


def test_what_came_of_the_last_attempt_is_on_the_error(completing: Completing, serve: Serve) -> None:
    upstream = serve(*[Fault("fin", "after_token")] * 2)
    with pytest.raises(StreamCut) as cut:
        completing(upstream, "Hi", policy=dataclasses.replace(QUICK, replays=1))
    assert (cut.value.text, cut.value.phase) == ("Hello", Phase.OUTPUT)
    assert cut.value.report is not None
    assert [attempt.held for attempt in cut.value.report.attempts] == [True, True]


def test_a_refusal_is_one(completing: Completing, serve: Serve) -> None:
    with pytest.raises(ProviderError) as refused:
        completing(serve(Fault("status", "before_headers", status=401)), "Hi")
    assert refused.value.status == 401


def test_an_error_in_a_held_stream_is_asked_again(completing: Completing, serve: Serve) -> None:
    upstream = serve(Fault("error_event", "after_token"))
    assert completing(upstream, "Hi").text == "Hello from the lab."
    assert len(upstream.requests) == 2
