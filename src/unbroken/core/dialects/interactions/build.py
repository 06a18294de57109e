"""Building a request for an interaction from messages and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message
from unbroken.core.dialects.common.system import without_system


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return the path that is appended to the base URL."""
    return "/v1beta/interactions"


def credentials(key: str) -> dict[str, str]:
    """Return the header that carries a key; a key in the URL would appear in logs."""
    return {"x-goog-api-key": key}


def body(
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Message],
    counts: bool,  # noqa: ARG001 - token counts always come
) -> dict[str, Any]:
    """Build the body of a request for a stream. System messages go into a field of their own.

    Raises:
        UsageError: a system message that is not text.
    """
    system, rest = without_system(messages)
    fields: dict[str, Any] = {"model": model, "input": [_step(message) for message in rest], "stream": True}
    if system:
        fields["system_instruction"] = system
    return fields | ({"tools": list(tools)} if tools else {})


def _step(message: Message) -> Message:
    """Return a message as a step; what already is one, or has contents of its own, is left as it is."""
    if "type" in message or not isinstance(message.get("content"), str):
        return message
    kind = "model_output" if message.get("role") in ("assistant", "model") else "user_input"
    return {"type": kind, "content": [{"type": "text", "text": message["content"]}]}
