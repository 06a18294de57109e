"""google-genai: the transport, in ``http_options``."""

from __future__ import annotations

from typing import Any

import httpx2
from google import genai

import unbroken
from sdks.callers import KEY, MODEL, Face, text_of
from unbroken import Policy


def client(origin: str, policy: Policy | None) -> genai.Client:
    options: dict[str, Any] = {"base_url": origin}
    if policy:
        options["httpx_client"] = httpx2.Client(transport=unbroken.Transport(policy=policy), timeout=None)
        options["httpx_async_client"] = httpx2.AsyncClient(
            transport=unbroken.AsyncTransport(policy=policy), timeout=None
        )
    return genai.Client(api_key=KEY, http_options=options)


def stream(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        return text_of([chunk.text for chunk in asking.models.generate_content_stream(model=MODEL, contents="Hello?")])


async def stream_async(origin: str, policy: Policy | None) -> str:
    async with client(origin, policy).aio as asking:
        chunks = await asking.models.generate_content_stream(model=MODEL, contents="Hello?")
        return text_of([chunk.text async for chunk in chunks])


def whole(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        return asking.models.generate_content(model=MODEL, contents="Hello?").text or ""


ERRORS = ("google", "aiohttp")
FACES = (
    Face("google-genai", "gemini", stream, errors=ERRORS),
    Face("google-genai, async", "gemini", stream_async, errors=ERRORS),
    Face("google-genai, not streamed", "gemini", whole, streams=False, errors=ERRORS),
)
