"""google-genai: the transport, in ``http_options``."""

from __future__ import annotations

from typing import Any

import httpx2
from google import genai
from google.genai import errors

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


def interact(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        events = asking.interactions.create(model=MODEL, input="Hello?", stream=True)
        return text_of([text_in(event) for event in events])


async def interact_async(origin: str, policy: Policy | None) -> str:
    async with client(origin, policy).aio as asking:
        events = await asking.interactions.create(model=MODEL, input="Hello?", stream=True)
        return text_of([text_in(event) async for event in events])


def interact_whole(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        return asking.interactions.create(model=MODEL, input="Hello?").output_text or ""


def text_in(event: Any) -> str | None:
    """What an event adds to the text. An error in the stream is an event, which the SDK does not raise."""
    if event.event_type == "error":
        raise errors.APIError(500, {"error": {"message": event.error.message}})
    return event.delta.text if event.event_type == "step.delta" and event.delta.type == "text" else None


ERRORS = ("google", "aiohttp")
FACES = (
    Face("google-genai", "gemini", stream, errors=ERRORS),
    Face("google-genai, async", "gemini", stream_async, errors=ERRORS),
    Face("google-genai, not streamed", "gemini", whole, streams=False, errors=ERRORS),
    Face("google-genai interactions", "interactions", interact, errors=ERRORS),
    Face("google-genai interactions, async", "interactions", interact_async, errors=ERRORS),
    Face("google-genai interactions, not streamed", "interactions", interact_whole, streams=False, errors=ERRORS),
)
