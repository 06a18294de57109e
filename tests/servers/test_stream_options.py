"""Servers that refuse ``stream_options``, with which a typed client asks for token counts, on sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from core.corpus import Recording, recordings
from differential.recorded import headers_of
from differential.streams import CASE, Stream
from differential.upstream import ScriptedUpstream
from servers.faces import KEY
from unbroken.client import AsyncClient, Client
from unbroken.errors import ProviderError

REFUSALS = [item for item in recordings("openai_chat_refused", "body") if item.name.startswith("stream-options")]
[HELLO] = [item for item in recordings("openai_chat") if item.name == "coding-none"]


def twice(arguments: dict[str, Any]) -> list[str]:
    with Client(**arguments) as client:
        said = []
        for _ in range(2):
            with client.stream("Hello?") as turn:
                said.append(turn.read().text)
        return said


async def _twice(arguments: dict[str, Any]) -> list[str]:
    async with AsyncClient(**arguments) as client:
        said = []
        for _ in range(2):
            async with client.stream("Hello?") as turn:
                said.append((await turn.read()).text)
        return said


CLIENTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "client": twice,
    "client-asyncio": lambda arguments: anyio.run(_twice, arguments, backend="asyncio"),
    "client-trio": lambda arguments: anyio.run(_twice, arguments, backend="trio"),
}


def refused(refusal: Recording) -> Stream:
    return Stream((refusal.body,), {"content-type": refusal.facts["content_type"]}, status=refusal.facts["status"])


def arguments(upstream: ScriptedUpstream, case: str) -> dict[str, Any]:
    base_url = f"{upstream.server.url}/v1"
    return {"base_url": base_url, "api_key": KEY, "model": "m", "headers": {CASE: case}, "_environ": {}}


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_it_is_asked_once_more_without_and_never_again_with(
    upstream: ScriptedUpstream, name: str, refusal: Recording
) -> None:
    case = f"{refusal}-{name}"
    upstream.script(case, refused(refusal), Stream((HELLO.body,), headers_of(HELLO)))
    assert CLIENTS[name](arguments(upstream, case)) == [HELLO.expect["text"]] * 2
    assert ["stream_options" in json.loads(body) for body in upstream.requests[case]] == [True, False, False]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_refuses_all_the_same_is_not_asked_a_third_time(upstream: ScriptedUpstream, name: str) -> None:
    case = f"always-{name}"
    upstream.script(case, refused(REFUSALS[0]))
    with pytest.raises(ProviderError, match="stream_options"):
        CLIENTS[name](arguments(upstream, case))
    assert len(upstream.requests[case]) == 2
