"""``unbroken.wrap``, with the one SDK that the main environment has; the others are in ``tests/sdks``."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

import unbroken
from transports.asking import CHAT, POLICY
from unbroken import UsageError
from unbroken.lab import Fault

openai = pytest.importorskip("openai")
ASK: dict[str, Any] = {"model": "lab", "messages": CHAT["messages"], "stream": True}
TEXT = "Hello from the lab."


def test_a_wrapped_client_survives_a_cut(serve) -> None:
    upstream = serve(Fault("rst", "after_role"))
    with unbroken.wrap(openai.OpenAI(api_key="x", base_url=upstream.url), policy=POLICY) as client:
        chunks = client.chat.completions.create(**ASK)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert len(upstream.requests) == 2


def test_a_wrapped_async_client_survives_a_cut(serve) -> None:
    upstream = serve(Fault("rst", "after_role"))

    async def ask() -> str:
        async with unbroken.wrap(openai.AsyncOpenAI(api_key="x", base_url=upstream.url), policy=POLICY) as client:
            chunks = await client.chat.completions.create(**ASK)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    assert asyncio.run(ask()) == TEXT
    assert len(upstream.requests) == 2


def test_the_copy_keeps_what_the_client_was_told(serve) -> None:
    upstream = serve()
    plain = openai.OpenAI(api_key="x", base_url=upstream.url, timeout=7, default_headers={"x-mine": "1"})
    with unbroken.wrap(plain) as client:
        assert (client.timeout, client.api_key, str(client.base_url)) == (7, "x", upstream.url + "/")
        client.chat.completions.create(**ASK).close()
        assert [model.id for model in client.models.list()] == ["lab"]
    assert upstream.requests[0].header("x-mine") == "1"
    assert plain.max_retries == 2
    assert type(plain._client._transport) is httpx2.HTTPTransport


@pytest.mark.parametrize(("wrapped", "requests"), [(True, 4), (False, 4)])
def test_there_is_one_budget_and_not_a_product_of_two(serve, wrapped: bool, requests: int) -> None:
    """Without `wrap` the SDK retries too, but each of its retries gets a single attempt."""
    upstream = serve(*[Fault("rst", "before_headers")] * 20)
    plain = openai.OpenAI(api_key="x", base_url=upstream.url)
    if wrapped:
        client = unbroken.wrap(plain, policy=POLICY)
    else:
        http_client = httpx2.Client(transport=unbroken.Transport(policy=POLICY))
        client = plain.copy(http_client=http_client, max_retries=1)
        requests += 1
    with client, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**ASK)
    assert len(upstream.requests) == requests


@pytest.mark.parametrize("client", [object(), httpx2.Client()], ids=["anything", "httpx2"])
def test_what_cannot_be_wrapped_is_refused(client: Any) -> None:
    with pytest.raises(UsageError, match="docs/sdks"):
        unbroken.wrap(client)


def test_an_http_client_of_ones_own_is_not_dropped_in_silence(serve) -> None:
    upstream = serve()
    own = openai.OpenAI(api_key="x", base_url=upstream.url, http_client=httpx2.Client(proxy="http://localhost:1"))
    with pytest.raises(UsageError, match="proxy="):
        unbroken.wrap(own)
    with unbroken.wrap(own, trust_env=False) as client:
        client.chat.completions.create(**ASK).close()
