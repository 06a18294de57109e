"""Building a request for a response from messages and tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return the path that is appended to the base URL."""
    return "/responses"


def body(
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Message],
    counts: bool,  # noqa: ARG001 - token counts always come
) -> dict[str, Any]:
    """Build the body of a request for a stream."""
    fields: dict[str, Any] = {"model": model, "input": list(messages), "stream": True}
    return fields | ({"tools": list(tools)} if tools else {})
