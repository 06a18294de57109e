"""openai-agents: ``set_default_openai_client(unbroken.wrap(client))``."""

from __future__ import annotations

import agents
import openai

import unbroken
from sdks.callers import KEY, MODEL, Face, text_of
from unbroken import Policy

agents.set_tracing_disabled(True)


async def ask(origin: str, policy: Policy | None) -> str:
    client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1")
    agents.set_default_openai_client(unbroken.wrap(client, policy=policy) if policy else client)
    result = agents.Runner.run_streamed(agents.Agent(name="lab", model=MODEL), "Hello?")
    raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    return text_of([event.delta for event in raw if event.type == "response.output_text.delta"])


async def responses(origin: str, policy: Policy | None) -> str:
    agents.set_default_openai_api("responses")
    return await ask(origin, policy)


async def chat(origin: str, policy: Policy | None) -> str:
    agents.set_default_openai_api("chat_completions")
    return await ask(origin, policy)


ERRORS = ("agents", "openai")
FACES = (
    Face("openai-agents, responses", "responses", responses, errors=ERRORS),
    Face("openai-agents, chat", "chat", chat, errors=ERRORS),
)
