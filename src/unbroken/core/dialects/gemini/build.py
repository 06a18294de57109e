"""Building a request to generate content from messages and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message
from unbroken.core.dialects.common.system import without_system


def path(model: str) -> str:
    """What is appended to the base URL."""
    return f"/v1beta/models/{model.removeprefix('models/')}:streamGenerateContent?alt=sse"


def credentials(key: str) -> dict[str, str]:
    """The header that carries a key: in the URL it would end up in logs."""
    return {"x-goog-api-key": key}


def body(
    model: str,  # noqa: ARG001 - it is in the path
    messages: Sequence[Message],
    tools: Sequence[Message],
    counts: bool,  # noqa: ARG001 - token counts always come
) -> dict[str, Any]:
    """The body of a request for a stream. System messages stand apart.

    Raises:
        UsageError: a system message that is not text.
    """
    system, rest = without_system(messages)
    fields: dict[str, Any] = {"contents": [_content(message) for message in rest]}
    if system:
        fields["systemInstruction"] = {"parts": [{"text": system}]}
    return fields | ({"tools": list(tools)} if tools else {})


def _content(message: Message) -> Message:
    if "parts" in message or not isinstance(message.get("content"), str):
        return message
    role = "model" if message.get("role") == "assistant" else "user"
    return {"role": role, "parts": [{"text": message["content"]}]}
