"""Building a chat completion's request from messages and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return the path that is appended to the base URL."""
    return "/chat/completions"


def body(model: str, messages: Sequence[Message], tools: Sequence[Message], counts: bool) -> dict[str, Any]:
    """Build the body of a request for a stream. Token counts come only on request."""
    fields: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
    if counts:
        fields["stream_options"] = {"include_usage": True}
    return fields | ({"tools": list(tools)} if tools else {})
