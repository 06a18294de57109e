"""What a program's type checker sees of the public names; :mod:`client.test_typing` runs mypy over it."""

from __future__ import annotations

from typing import assert_type

import unbroken
from unbroken import (
    Answer,
    AsyncClient,
    AttemptReport,
    Client,
    Finish,
    Policy,
    ProviderError,
    Reasoning,
    Report,
    RetryEvent,
    StreamCut,
    Text,
    ToolCall,
    TypedEvent,
    Usage,
)


def on_retry(event: RetryEvent) -> None:
    assert_type(event.attempt, int)
    assert_type(event.delay, float)
    assert_type(event.lost, AttemptReport)


def blocking() -> None:
    with (
        Client("deepseek", policy=Policy(replays=1), on_retry=on_retry) as client,
        client.stream([{"role": "user", "content": "Hi"}], model="m", temperature=0.5) as turn,
    ):
        for event in turn:
            assert_type(event, TypedEvent)
            match event:
                case Text(text) | Reasoning(text):
                    assert_type(text, str)
                case ToolCall():
                    assert_type(event.arguments, str)
                case Finish(reason):
                    assert_type(reason, str)
                case _:
                    pass
        assert_type(turn.read(), Answer)
        assert_type(turn.text, str)
        assert_type(turn.usage, Usage)
        assert_type(turn.usage.total, int | None)
        assert_type(turn.finish_reason, str | None)
        assert_type(turn.tool_calls, list[ToolCall])
        assert_type(turn.report, Report)
        assert_type(client.complete("Hi", policy=Policy(hold="reasoning"), hold="answer", temperature=0.5), Answer)


async def asynchronous() -> None:
    async with AsyncClient("deepseek") as client, client.stream("Hi") as turn:
        async for event in turn:
            assert_type(event, TypedEvent)
        assert_type(await turn.read(), Answer)
        assert_type(await client.complete("Hi"), Answer)


def errors() -> None:
    try:
        blocking()
    except StreamCut as error:
        assert_type(error.report, Report | None)
        assert_type(error.retryable, bool)
        assert_type(error.held, bytes)
    except ProviderError as error:
        assert_type(error.status, int)
        assert_type(error.kind, str)
    assert_type(unbroken.__version__, str)
