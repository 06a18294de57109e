"""How a chat completion is continued.

Sources: DeepSeek API docs, "Chat Prefix Completion (Beta)" (the last message has ``prefix: true``, under ``/beta``) and
"Create Chat Completion" (``reasoning_content`` of that message); Mistral docs, "Prefix"; vLLM's documentation of its
"Chat API" (``continue_final_message``, which excludes ``add_generation_prompt``); llama.cpp pull request 13174 (a last
message of the assistant is continued); Groq docs, "Assistant Message Prefilling"; OpenRouter docs, "Assistant Prefill".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.continuation.format import ContinuationFormat, Style
from unbroken.core.dialects.common.claude import is_claude, refusal_of_prefill
from unbroken.core.dialects.common.continued_choices import LIMITS, ChoiceTranscript, obstacle_of, stops_of
from unbroken.core.payload import RequestBody, dicts, filled, mapping, text


class ChatTranscript(ChoiceTranscript):
    """What the caller has of a chat completion."""

    text_field = "content"

    @classmethod
    def said(cls, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the delta, without the role."""
        said = mapping(choice.get("delta")) or mapping(choice.get("message"))
        return {name: value for name, value in said.items() if name != "role"}


def obstacle(body: RequestBody, url: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return why the answer to a request cannot be continued exactly, ``""`` if it can."""
    messages = list(dicts(body.get("messages")))
    if not messages or messages[-1].get("role") == "assistant":
        return "the request itself ends with a message of the assistant"
    if filled(body.get("modalities")) and body.get("modalities") != ["text"]:
        return "more than text was asked for (modalities)"
    if is_claude(text(body.get("model"))):
        thinks = any(filled(body.get(name)) for name in ("thinking", "reasoning", "reasoning_effort"))
        if problem := refusal_of_prefill(text(body.get("model")), thinks=thinks):
            return problem
    return obstacle_of(body)


def extended(body: RequestBody, style: Style, words: str, reasoning: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields with which a request asks for the rest of its answer."""
    message: dict[str, Any] = {"role": "assistant", "content": words}
    fields: dict[str, Any] = {}
    if style == "prefix":
        message["prefix"] = True
        message |= {name: value for name, value in reasoning.items() if name == "reasoning_content"}
    elif style == "continue_final_message":
        fields = {"continue_final_message": True, "add_generation_prompt": False}
    return {"messages": [*body["messages"], message], **fields}


def keeps_space(body: RequestBody, url: str, style: Style) -> bool:  # noqa: ARG001 - the model is in the body
    """Return whether white space at the end of the text may be sent: Anthropic's models do not take it."""
    return not is_claude(text(body.get("model")))


CONTINUATION = ContinuationFormat(
    styles=frozenset({"prefix", "continue_final_message", "assistant"}),
    transcript=ChatTranscript,
    obstacle=obstacle,
    extended=extended,
    limits=LIMITS,
    stops=stops_of,
    keeps_space=keeps_space,
)
