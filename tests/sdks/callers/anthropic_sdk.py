"""anthropic: ``unbroken.wrap(client)``."""

from __future__ import annotations

import anthropic

import unbroken
from sdks.callers import KEY, MESSAGES, MODEL, Face, text_of
from unbroken import Policy

ASK = {"model": MODEL, "max_tokens": 100, "messages": MESSAGES}


def client(origin: str, policy: Policy | None) -> anthropic.Anthropic:
    plain = anthropic.Anthropic(api_key=KEY, base_url=origin)
    return unbroken.wrap(plain, policy=policy) if policy else plain


def async_client(origin: str, policy: Policy | None) -> anthropic.AsyncAnthropic:
    plain = anthropic.AsyncAnthropic(api_key=KEY, base_url=origin)
    return unbroken.wrap(plain, policy=policy) if policy else plain


def create(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        stream = asking.messages.create(**ASK, stream=True)
        return text_of([event.delta.text for event in stream if event.type == "content_block_delta"])


async def create_async(origin: str, policy: Policy | None) -> str:
    async with async_client(origin, policy) as asking:
        stream = await asking.messages.create(**ASK, stream=True)
        return text_of([event.delta.text async for event in stream if event.type == "content_block_delta"])


def helper(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking, asking.messages.stream(**ASK) as stream:
        return text_of(list(stream.text_stream))


async def helper_async(origin: str, policy: Policy | None) -> str:
    async with async_client(origin, policy) as asking, asking.messages.stream(**ASK) as stream:
        return text_of([text async for text in stream.text_stream])


def whole(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        return asking.messages.create(**ASK).content[0].text


ERRORS = ("anthropic",)
FACES = (
    Face("anthropic", "anthropic", create, errors=ERRORS),
    Face("anthropic, async", "anthropic", create_async, errors=ERRORS),
    Face("anthropic .stream()", "anthropic", helper, errors=ERRORS),
    Face("anthropic .stream(), async", "anthropic", helper_async, errors=ERRORS),
    Face("anthropic, not streamed", "anthropic", whole, streams=False, errors=ERRORS),
)
