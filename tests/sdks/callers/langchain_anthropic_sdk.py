"""langchain-anthropic takes no HTTP client: wrap the client that it has made."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic

import unbroken
from sdks.callers import KEY, MODEL, Face, text_of
from unbroken import Policy


def model(origin: str, policy: Policy | None) -> ChatAnthropic:
    chat = ChatAnthropic(model=MODEL, api_key=KEY, base_url=origin, max_tokens=100)
    if policy:
        chat.__dict__["_client"] = unbroken.wrap(chat._client, policy=policy)
        chat.__dict__["_async_client"] = unbroken.wrap(chat._async_client, policy=policy)
    return chat


def stream(origin: str, policy: Policy | None) -> str:
    return text_of([chunk.text for chunk in model(origin, policy).stream("Hello?")])


async def stream_async(origin: str, policy: Policy | None) -> str:
    return text_of([chunk.text async for chunk in model(origin, policy).astream("Hello?")])


ERRORS = ("anthropic", "langchain_core", "langchain_anthropic")
FACES = (
    Face("langchain-anthropic", "anthropic", stream, errors=ERRORS),
    Face("langchain-anthropic, async", "anthropic", stream_async, errors=ERRORS),
)
