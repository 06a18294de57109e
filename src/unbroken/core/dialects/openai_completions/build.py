"""Building a legacy completion's request: one prompt, no conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.dialect import Message
from unbroken.errors import UsageError


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return the path that is appended to the base URL."""
    return "/completions"


def body(model: str, messages: Sequence[Message], tools: Sequence[Message], counts: bool) -> dict[str, Any]:
    """Build the body of a request for a stream. Token counts come only on request.

    Raises:
        UsageError: a conversation, or tools, which the format does not support.
    """
    if tools:
        raise UsageError("legacy completions take no tools: ask with chat completions")
    if len(messages) != 1 or not isinstance(messages[0].get("content"), str):
        raise UsageError("legacy completions take one prompt, not a conversation: ask with chat completions")
    fields: dict[str, Any] = {"model": model, "prompt": messages[0]["content"], "stream": True}
    return fields | ({"stream_options": {"include_usage": True}} if counts else {})
