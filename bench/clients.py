"""A client that is measured, in a process of its own: asks for one turn for each line of its input.

    python -m bench.clients <contestant> <sync|asyncio|uvloop> <origin> <ca file>

Prints how many events of text (or, for those that hand on bytes, how many bytes) it got, so that the bench can see
that the turn was whole. Between turns it waits for its input, and uses no CPU.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

KEY = "sk-bench"
MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}

Ask = Callable[[str], int]
AsyncAsk = Callable[[str], Awaitable[int]]


class Target(NamedTuple):
    """The server.

    Attributes:
        origin: ``http://`` or ``https://``, host and port.
        ca_file: the authority of its certificate.
    """

    origin: str
    ca_file: str

    @property
    def url(self) -> str:
        """The base URL of the OpenAI dialects."""
        return self.origin + "/v1"

    @property
    def tls(self) -> ssl.SSLContext:
        """Trust the server alone."""
        return ssl.create_default_context(cafile=self.ca_file)


def body_of(model: str) -> bytes:
    return json.dumps({"model": model, "stream": True, "messages": MESSAGES}).encode()


# Bytes


def unbroken_bytes(target: Target) -> Ask:
    from unbroken.core.dialects import recognise
    from unbroken.core.http import Request
    from unbroken.core.policy import Policy
    from unbroken.drivers.synchronous import Driver
    from unbroken.wire.http import HttpWire

    wire, policy = HttpWire(proxy="", verify=target.ca_file), Policy()

    def ask(model: str) -> int:
        request = Request("POST", f"{target.url}/chat/completions", body=body_of(model))
        call = recognise(request)
        assert call
        with Driver(wire, request, call, policy) as driver:
            driver.open()
            return sum(map(len, driver))

    return ask


def async_unbroken_bytes(target: Target) -> AsyncAsk:
    from unbroken.core.dialects import recognise
    from unbroken.core.http import Request
    from unbroken.core.policy import Policy
    from unbroken.drivers.asynchronous import AsyncDriver
    from unbroken.wire.async_http import AsyncHttpWire

    wire, policy = AsyncHttpWire(proxy="", verify=target.ca_file), Policy()

    async def ask(model: str) -> int:
        request = Request("POST", f"{target.url}/chat/completions", body=body_of(model))
        call = recognise(request)
        assert call
        async with AsyncDriver(wire, request, call, policy) as driver:
            await driver.open()
            got = 0
            async for data in driver:
                got += len(data)
            return got

    return ask


def httpx2_client(target: Target, ours: bool) -> Any:
    import httpx2

    from unbroken.transports import httpx2 as unbroken

    if ours:
        return httpx2.Client(transport=unbroken.Transport(verify=target.tls, trust_env=False), timeout=None)
    return httpx2.Client(trust_env=False, http2=True, verify=target.tls, timeout=None)


def async_httpx2_client(target: Target, ours: bool) -> Any:
    import httpx2

    from unbroken.transports import httpx2 as unbroken

    if ours:
        return httpx2.AsyncClient(transport=unbroken.AsyncTransport(verify=target.tls, trust_env=False), timeout=None)
    return httpx2.AsyncClient(trust_env=False, http2=True, verify=target.tls, timeout=None)


def httpx2_bytes(target: Target, ours: bool = False) -> Ask:
    client = httpx2_client(target, ours)

    def ask(model: str) -> int:
        url = f"{target.url}/chat/completions"
        with client.stream("POST", url, content=body_of(model), headers=HEADERS) as response:
            return sum(map(len, response.iter_raw()))

    return ask


def async_httpx2_bytes(target: Target, ours: bool = False) -> AsyncAsk:
    client = async_httpx2_client(target, ours)

    async def ask(model: str) -> int:
        got = 0
        url = f"{target.url}/chat/completions"
        async with client.stream("POST", url, content=body_of(model), headers=HEADERS) as response:
            async for data in response.aiter_raw():
                got += len(data)
        return got

    return ask


def async_aiohttp_bytes(target: Target) -> AsyncAsk:
    import aiohttp

    session: aiohttp.ClientSession | None = None

    async def ask(model: str) -> int:
        nonlocal session
        if session is None:  # it wants a running loop
            session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        got = 0
        url = f"{target.url}/chat/completions"
        async with session.post(url, data=body_of(model), headers=HEADERS, ssl=target.tls) as response:
            async for data in response.content.iter_any():
                got += len(data)
        return got

    return ask


# Typed


def unbroken_typed(target: Target, dialect: str = "openai-chat", path: str = "/v1") -> Ask:
    import unbroken

    client = unbroken.Client(
        base_url=target.origin + path, verify=target.ca_file, proxy="", dialect=dialect, _environ={}
    )

    def ask(model: str) -> int:
        with client.stream("Hello", model=model) as turn:
            return sum(isinstance(event, unbroken.Text) for event in turn)

    return ask


def async_unbroken_typed(target: Target, dialect: str = "openai-chat", path: str = "/v1") -> AsyncAsk:
    import unbroken

    client = unbroken.AsyncClient(
        base_url=target.origin + path, verify=target.ca_file, proxy="", dialect=dialect, _environ={}
    )

    async def ask(model: str) -> int:
        got = 0
        async with client.stream("Hello", model=model) as turn:
            async for event in turn:
                got += isinstance(event, unbroken.Text)
        return got

    return ask


def openai_sdk(target: Target, ours: bool = False) -> Ask:
    import openai

    client = openai.OpenAI(base_url=target.url, api_key=KEY, http_client=httpx2_client(target, ours))

    def ask(model: str) -> int:
        stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        return sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in stream)

    return ask


def async_openai_sdk(target: Target, ours: bool = False) -> AsyncAsk:
    import openai

    client = openai.AsyncOpenAI(base_url=target.url, api_key=KEY, http_client=async_httpx2_client(target, ours))

    async def ask(model: str) -> int:
        got = 0
        async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            got += bool(chunk.choices and chunk.choices[0].delta.content)
        return got

    return ask


def anthropic_sdk(target: Target, ours: bool = False) -> Ask:
    import anthropic

    client = anthropic.Anthropic(base_url=target.origin, api_key=KEY, http_client=httpx2_client(target, ours))

    def ask(model: str) -> int:
        stream = client.messages.create(model=model, max_tokens=100, messages=MESSAGES, stream=True)
        return sum(event.type == "content_block_delta" for event in stream)

    return ask


def async_anthropic_sdk(target: Target, ours: bool = False) -> AsyncAsk:
    import anthropic

    client = anthropic.AsyncAnthropic(
        base_url=target.origin, api_key=KEY, http_client=async_httpx2_client(target, ours)
    )

    async def ask(model: str) -> int:
        got = 0
        async for event in await client.messages.create(model=model, max_tokens=100, messages=MESSAGES, stream=True):
            got += event.type == "content_block_delta"
        return got

    return ask


def litellm_sdk(target: Target) -> Ask:
    import litellm

    def ask(model: str) -> int:
        stream = litellm.completion(
            model=f"openai/{model}", api_base=target.url, api_key=KEY, messages=MESSAGES, stream=True
        )
        return sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in stream)

    return ask


def async_litellm_sdk(target: Target) -> AsyncAsk:
    import litellm

    async def ask(model: str) -> int:
        got = 0
        stream = await litellm.acompletion(
            model=f"openai/{model}", api_base=target.url, api_key=KEY, messages=MESSAGES, stream=True
        )
        async for chunk in stream:
            got += bool(chunk.choices and chunk.choices[0].delta.content)
        return got

    return ask


def async_pydantic_ai(target: Target) -> AsyncAsk:
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai.AsyncOpenAI(base_url=target.url, api_key=KEY, http_client=async_httpx2_client(target, False))
    provider = OpenAIProvider(openai_client=client)

    async def ask(model: str) -> int:
        got = 0
        async with Agent(OpenAIChatModel(model, provider=provider)).run_stream("Hello") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                got += 1
        return got

    return ask


SYNC: dict[str, Callable[[Target], Ask]] = {
    "unbroken, bytes": unbroken_bytes,
    "httpx2, bytes": httpx2_bytes,
    "httpx2 + unbroken.Transport, bytes": lambda target: httpx2_bytes(target, ours=True),
    "unbroken, typed": unbroken_typed,
    "unbroken, typed, Anthropic": lambda target: unbroken_typed(target, "anthropic-messages", ""),
    "openai SDK": openai_sdk,
    "openai SDK + unbroken.Transport": lambda target: openai_sdk(target, ours=True),
    "anthropic SDK": anthropic_sdk,
    "anthropic SDK + unbroken.Transport": lambda target: anthropic_sdk(target, ours=True),
    "litellm": litellm_sdk,
}
ASYNC: dict[str, Callable[[Target], AsyncAsk]] = {
    "unbroken, bytes": async_unbroken_bytes,
    "httpx2, bytes": async_httpx2_bytes,
    "httpx2 + unbroken.Transport, bytes": lambda target: async_httpx2_bytes(target, ours=True),
    "aiohttp, bytes": async_aiohttp_bytes,
    "unbroken, typed": async_unbroken_typed,
    "unbroken, typed, Anthropic": lambda target: async_unbroken_typed(target, "anthropic-messages", ""),
    "openai SDK": async_openai_sdk,
    "openai SDK + unbroken.Transport": lambda target: async_openai_sdk(target, ours=True),
    "anthropic SDK": async_anthropic_sdk,
    "anthropic SDK + unbroken.Transport": lambda target: async_anthropic_sdk(target, ours=True),
    "litellm": async_litellm_sdk,
    "pydantic-ai": async_pydantic_ai,
}
NO_HTTP2 = {"aiohttp, bytes", "litellm", "pydantic-ai"}
"""aiohttp has no HTTP/2; the others are measured over plain HTTP, as what they add is the same in TLS."""


def main() -> None:
    name, loop, *target = sys.argv[1:]
    logging.getLogger("unbroken").addHandler(logging.NullHandler())  # notices of replays
    if loop == "sync":
        answer(SYNC[name](Target(*target)))
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        turn = ASYNC[name](Target(*target))
        answer(lambda model: runner.run(as_coroutine(turn(model))))


async def as_coroutine(turn: Awaitable[int]) -> int:
    return await turn


def answer(ask: Ask) -> None:
    """Ask for what each line says. A turn that fails is told as an error, with the time at which it did."""
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(ask(line.strip()), flush=True)
        except Exception as exc:
            if not line.startswith("cut-"):
                raise
            print("lost", time.monotonic(), type(exc).__name__, flush=True)


if __name__ == "__main__":
    main()
