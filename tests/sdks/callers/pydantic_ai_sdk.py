"""pydantic-ai: a wrapped client for its provider."""

from __future__ import annotations

import anthropic
import openai
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

import unbroken
from sdks.callers import KEY, MODEL, Face, text_of
from unbroken import Policy


def openai_provider(origin: str, policy: Policy | None) -> OpenAIProvider:
    client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1")
    return OpenAIProvider(openai_client=unbroken.wrap(client, policy=policy) if policy else client)


def anthropic_provider(origin: str, policy: Policy | None) -> AnthropicProvider:
    client = anthropic.AsyncAnthropic(api_key=KEY, base_url=origin)
    return AnthropicProvider(anthropic_client=unbroken.wrap(client, policy=policy) if policy else client)


async def ask(model: Model) -> str:
    async with Agent(model).run_stream("Hello?") as result:
        return text_of([text async for text in result.stream_text(delta=True, debounce_by=None)])


async def chat(origin: str, policy: Policy | None) -> str:
    return await ask(OpenAIChatModel(MODEL, provider=openai_provider(origin, policy)))


async def responses(origin: str, policy: Policy | None) -> str:
    return await ask(OpenAIResponsesModel(MODEL, provider=openai_provider(origin, policy)))


async def messages(origin: str, policy: Policy | None) -> str:
    return await ask(AnthropicModel(MODEL, provider=anthropic_provider(origin, policy)))


ERRORS = ("pydantic_ai", "openai", "anthropic")
FACES = (
    Face("pydantic-ai, OpenAI chat", "chat", chat, errors=ERRORS),
    Face("pydantic-ai, OpenAI responses", "responses", responses, errors=ERRORS),
    Face("pydantic-ai, Anthropic", "anthropic", messages, errors=ERRORS),
)
