"""How a legacy completion is continued: its prompt grows by the text.

Source: OpenAI API reference, "Completions": a completion is the continuation of its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.continuation.format import ContinuationFormat, Style
from unbroken.core.dialects.common.continued_choices import LIMITS, ChoiceTranscript, obstacle_of, stops_of
from unbroken.core.dialects.openai_completions.rule import ASIDES
from unbroken.core.payload import RequestBody, filled, mapping


class CompletionTranscript(ChoiceTranscript):
    """What the caller has of a completion."""

    text_field = "text"

    @classmethod
    def said(cls, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a choice that hold what the model said, its delta's among them."""
        fields = {**choice, **mapping(choice.get("message")), **mapping(choice.get("delta"))}
        return {name: value for name, value in fields.items() if name not in ASIDES and name != "logprobs"}


def obstacle(body: RequestBody, url: str) -> str:  # noqa: ARG001 - the body is enough
    """Return why the answer to a request cannot be continued exactly, ``""`` if it can."""
    if _prompt(body) is None or filled(body.get("prompt_embeds")):
        return "its prompt is not one text"
    return obstacle_of(body)


def extended(body: RequestBody, style: Style, words: str, reasoning: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    """Return the fields with which a request asks for the rest of its answer."""
    return {"prompt": f"{_prompt(body)}{words}"}


def _prompt(body: RequestBody) -> str | None:
    """Return the prompt if it is one text, alone or in a list."""
    prompt = body.get("prompt")
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    return prompt if isinstance(prompt, str) else None


CONTINUATION = ContinuationFormat(
    styles=frozenset({"completion"}),
    only_style="completion",
    transcript=CompletionTranscript,
    obstacle=obstacle,
    extended=extended,
    limits=LIMITS,
    stops=stops_of,
)
