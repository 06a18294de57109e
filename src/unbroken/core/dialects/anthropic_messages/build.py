"""Building a request for a message from messages and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from unbroken.core.dialect import Message
from unbroken.core.dialects.common.system import without_system

HEADERS: Mapping[str, str] = MappingProxyType({"anthropic-version": "2023-06-01"})
"""Anthropic's API version, which its documentation requires in every request."""

DEFAULT_MAX_TOKENS = 8192
"""The limit for the answer, which Anthropic requires, if the caller gives none."""


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """Return the path that is appended to the base URL."""
    return "/v1/messages"


def credentials(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"x-api-key": key}


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
    fields: dict[str, Any] = {"model": model, "messages": rest, "max_tokens": DEFAULT_MAX_TOKENS, "stream": True}
    if system:
        fields["system"] = system
    return fields | ({"tools": list(tools)} if tools else {})
