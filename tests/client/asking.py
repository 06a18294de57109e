"""A turn by either client, and streams for it to read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio

from unbroken.client import Answer, AsyncClient, Client
from unbroken.core.events import TypedEvent
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.errors import TurnError
from unbroken.lab import Fault, Upstream

KEY = "sk-client-0123456789"
QUICK = Policy(
    backoff_initial=0.01,
    backoff_max=0.02,
    idle_timeout=5,
    first_output_timeout=10,
    settle_timeout=0.3,
    unreachable_for=0.2,
)


@dataclasses.dataclass(kw_only=True)
class Said:
    """What came of a turn."""

    events: list[TypedEvent]
    answer: Answer
    error: TurnError | None
    report: Report


Asking: TypeAlias = Callable[..., Said]
"""``asking(upstream, messages, client={...}, **options)``"""


def _arguments(upstream: Upstream, client: dict[str, Any] | None) -> dict[str, Any]:
    own = {"base_url": upstream.url, "api_key": KEY, "policy": QUICK, "_environ": {}}
    return {**own, **(client or {})}


def ask(upstream: Upstream, messages: Any = "Hi", *, client: dict[str, Any] | None = None, **options: Any) -> Said:
    events: list[TypedEvent] = []
    error = None
    with Client(**_arguments(upstream, client)) as asked:
        turn = asked.stream(messages, **options)
        try:
            with turn:
                for event in turn:
                    events.append(event)  # noqa: PERF402 - what came before an error counts
        except TurnError as exc:
            error = exc
    return Said(events=events, answer=turn.answer, error=error, report=turn.report)


async def ask_async(
    upstream: Upstream, messages: Any = "Hi", *, client: dict[str, Any] | None = None, **options: Any
) -> Said:
    events: list[TypedEvent] = []
    error = None
    async with AsyncClient(**_arguments(upstream, client)) as asked:
        turn = asked.stream(messages, **options)
        try:
            async with turn:
                async for event in turn:
                    events.append(event)  # noqa: PERF401 - what came before an error counts
        except TurnError as exc:
            error = exc
    return Said(events=events, answer=turn.answer, error=error, report=turn.report)


def _on(backend: str) -> Asking:
    def run(*args: Any, **kwargs: Any) -> Said:
        async def main() -> Said:
            return await ask_async(*args, **kwargs)

        return anyio.run(main, backend=backend)

    return run


ASKINGS: dict[str, Asking] = {"client": ask, "asyncio": _on("asyncio"), "trio": _on("trio")}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def piece(index: int, arguments: str = "", *, id: str = "", name: str = "") -> dict[str, Any]:
    """A piece of a tool call."""
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if id:
        call["id"] = id
        call["function"]["name"] = name
    return {"tool_calls": [call]}


DONE = b"data: [DONE]\n\n"
STREAM = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def answer(*blocks: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Fault:
    """A response of these bytes."""
    return Fault("status", "before_headers", status=status, headers=headers or STREAM, body=b"".join(blocks))
