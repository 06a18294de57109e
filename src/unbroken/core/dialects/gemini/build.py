"""Building a request to generate content from messages and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message
from unbroken.core.dialects.common.system import without_system


def path(model: str) -> str:
    """Return the path that is appended to the base URL."""
    return f"/v1beta/models/{model.removeprefix('models/')}:streamGenerateContent?alt=sse"


def credentials(key: str) -> dict[str, str]:
    """Return the header that carries a key; a key in the URL would appear in logs."""
    return {"x-goog-api-key": key}


def body(
    model: str,  # noqa: ARG001 - the model is in the path
    messages: Sequence[Message],
    tools: Sequence[Message],
    counts: bool,  # noqa: ARG001 - token counts always come
) -> dict[str, Any]:
    """Build the body of a request for a stream. System messages go into a field of their own.

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
