"""openai: ``unbroken.wrap(client)``."""

from __future__ import annotations

import openai

import unbroken
from sdks.callers import KEY, MESSAGES, MODEL, Face, text_of
from unbroken import Policy


def client(origin: str, policy: Policy | None) -> openai.OpenAI:
    plain = openai.OpenAI(api_key=KEY, base_url=f"{origin}/v1")
    return unbroken.wrap(plain, policy=policy) if policy else plain


def async_client(origin: str, policy: Policy | None) -> openai.AsyncOpenAI:
    plain = openai.AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1")
    return unbroken.wrap(plain, policy=policy) if policy else plain


def chat_stream(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        stream = asking.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return text_of([chunk.choices[0].delta.content for chunk in stream if chunk.choices])


async def chat_stream_async(origin: str, policy: Policy | None) -> str:
    async with async_client(origin, policy) as asking:
        stream = await asking.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return text_of([chunk.choices[0].delta.content async for chunk in stream if chunk.choices])


def chat_helper(origin: str, policy: Policy | None) -> str:
    with (
        client(origin, policy) as asking,
        asking.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream,
    ):
        return text_of([event.delta for event in stream if event.type == "content.delta"])


async def chat_helper_async(origin: str, policy: Policy | None) -> str:
    async with (
        async_client(origin, policy) as asking,
        asking.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream,
    ):
        return text_of([event.delta async for event in stream if event.type == "content.delta"])


def responses_stream(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        stream = asking.responses.create(model=MODEL, input="Hello?", stream=True)
        return text_of([event.delta for event in stream if event.type == "response.output_text.delta"])


async def responses_stream_async(origin: str, policy: Policy | None) -> str:
    async with async_client(origin, policy) as asking:
        stream = await asking.responses.create(model=MODEL, input="Hello?", stream=True)
        return text_of([event.delta async for event in stream if event.type == "response.output_text.delta"])


def chat_whole(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        return asking.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message.content or ""


def completions_stream(origin: str, policy: Policy | None) -> str:
    with client(origin, policy) as asking:
        stream = asking.completions.create(model=MODEL, prompt="Hello?", stream=True)
        return text_of([chunk.choices[0].text for chunk in stream if chunk.choices])


ERRORS = ("openai",)
FACES = (
    Face("openai chat", "chat", chat_stream, errors=ERRORS),
    Face("openai chat, async", "chat", chat_stream_async, errors=ERRORS),
    Face("openai chat .stream()", "chat", chat_helper, errors=ERRORS),
    Face("openai chat .stream(), async", "chat", chat_helper_async, errors=ERRORS),
    Face("openai responses", "responses", responses_stream, errors=ERRORS),
    Face("openai responses, async", "responses", responses_stream_async, errors=ERRORS),
    Face("openai completions", "completions", completions_stream, errors=ERRORS),
    Face("openai chat, not streamed", "chat", chat_whole, streams=False, errors=ERRORS),
)
