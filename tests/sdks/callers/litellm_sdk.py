"""litellm: its own httpx clients, ``litellm.client_session`` and ``litellm.aclient_session``."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or importing it fetches a price list

import httpx
import litellm

from sdks.callers import KEY, MESSAGES, MODEL, Face, text_of
from unbroken import Policy
from unbroken.transports.httpx import AsyncTransport, Transport

litellm.suppress_debug_info = True
ASK = {"model": f"openai/{MODEL}", "messages": MESSAGES, "stream": True, "api_key": KEY}


def stream(origin: str, policy: Policy | None) -> str:
    litellm.client_session = httpx.Client(transport=Transport(policy=policy), timeout=None) if policy else None
    own = {"max_retries": 0} if policy else {}
    chunks = litellm.completion(**ASK, **own, api_base=f"{origin}/v1")
    return text_of([chunk.choices[0].delta.content for chunk in chunks])


async def stream_async(origin: str, policy: Policy | None) -> str:
    litellm.aclient_session = (
        httpx.AsyncClient(transport=AsyncTransport(policy=policy), timeout=None) if policy else None
    )
    own = {"max_retries": 0} if policy else {}
    chunks = await litellm.acompletion(**ASK, **own, api_base=f"{origin}/v1")
    return text_of([chunk.choices[0].delta.content async for chunk in chunks])


ERRORS = ("litellm", "openai")
FACES = (
    Face("litellm", "chat", stream, errors=ERRORS),
    Face("litellm, async", "chat", stream_async, errors=ERRORS),
)
