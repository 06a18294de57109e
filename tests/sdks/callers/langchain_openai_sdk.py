"""langchain-openai: the transport, in ``http_client`` and ``http_async_client``."""

from __future__ import annotations

import httpx2
from langchain_openai import ChatOpenAI

import unbroken
from sdks.callers import KEY, MODEL, Face, text_of
from unbroken import Policy


def model(origin: str, policy: Policy | None) -> ChatOpenAI:
    if policy is None:
        return ChatOpenAI(model=MODEL, api_key=KEY, base_url=f"{origin}/v1")
    return ChatOpenAI(
        model=MODEL,
        api_key=KEY,
        base_url=f"{origin}/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=unbroken.Transport(policy=policy), timeout=None),
        http_async_client=httpx2.AsyncClient(transport=unbroken.AsyncTransport(policy=policy), timeout=None),
    )


def stream(origin: str, policy: Policy | None) -> str:
    return text_of([chunk.text for chunk in model(origin, policy).stream("Hello?")])


async def stream_async(origin: str, policy: Policy | None) -> str:
    return text_of([chunk.text async for chunk in model(origin, policy).astream("Hello?")])


ERRORS = ("openai", "langchain_core", "langchain_openai")
FACES = (
    Face("langchain-openai", "chat", stream, errors=ERRORS),
    Face("langchain-openai, async", "chat", stream_async, errors=ERRORS),
)
