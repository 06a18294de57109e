"""groq: ``unbroken.wrap(client)``. It is built on httpx, the older library."""

from __future__ import annotations

import groq

import unbroken
from sdks.callers import KEY, MESSAGES, MODEL, Face, text_of
from unbroken import Policy


def stream(origin: str, policy: Policy | None) -> str:
    plain = groq.Groq(api_key=KEY, base_url=origin)
    with unbroken.wrap(plain, policy=policy) if policy else plain as asking:
        chunks = asking.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return text_of([chunk.choices[0].delta.content for chunk in chunks if chunk.choices])


async def stream_async(origin: str, policy: Policy | None) -> str:
    plain = groq.AsyncGroq(api_key=KEY, base_url=origin)
    async with unbroken.wrap(plain, policy=policy) if policy else plain as asking:
        chunks = await asking.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return text_of([chunk.choices[0].delta.content async for chunk in chunks if chunk.choices])


ERRORS = ("groq",)
FACES = (
    Face("groq", "chat", stream, errors=ERRORS),
    Face("groq, async", "chat", stream_async, errors=ERRORS),
)
