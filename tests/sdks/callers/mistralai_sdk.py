"""mistralai: the transport, in ``client``."""

from __future__ import annotations

import httpx2
from mistralai.client import Mistral

import unbroken
from sdks.callers import KEY, MESSAGES, MODEL, Face, text_of
from unbroken import Policy


def sdk(origin: str, policy: Policy | None) -> Mistral:
    if policy is None:
        return Mistral(api_key=KEY, server_url=origin)
    return Mistral(
        api_key=KEY,
        server_url=origin,
        client=httpx2.Client(transport=unbroken.Transport(policy=policy), timeout=None),
        async_client=httpx2.AsyncClient(transport=unbroken.AsyncTransport(policy=policy), timeout=None),
    )


def stream(origin: str, policy: Policy | None) -> str:
    with sdk(origin, policy) as asking, asking.chat.stream(model=MODEL, messages=MESSAGES) as events:
        return text_of([event.data.choices[0].delta.content for event in events if event.data.choices])


async def stream_async(origin: str, policy: Policy | None) -> str:
    async with sdk(origin, policy) as asking, await asking.chat.stream_async(model=MODEL, messages=MESSAGES) as events:
        return text_of([event.data.choices[0].delta.content async for event in events if event.data.choices])


ERRORS = ("mistralai",)
FACES = (
    Face("mistralai chat.stream", "chat", stream, errors=ERRORS),
    Face("mistralai chat.stream, async", "chat", stream_async, errors=ERRORS),
)
