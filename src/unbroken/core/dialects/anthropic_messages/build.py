"""Building a request for a message from messages and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from unbroken.core.dialect import Message
from unbroken.core.dialects.common.system import without_system

HEADERS: Mapping[str, str] = MappingProxyType({"anthropic-version": "2023-06-01"})
"""Anthropic's API version, which its documentation asks every request to name."""

DEFAULT_MAX_TOKENS = 8192
"""Anthropic demands a limit for the answer; this is sent where the caller names none."""


def path(model: str) -> str:  # noqa: ARG001 - the model is in the body
    """What is appended to the base URL."""
    return "/v1/messages"


def credentials(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"x-api-key": key}


def body(
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Message],
    counts: bool,  # noqa: ARG001 - token counts always come
) -> dict[str, Any]:
    """The body of a request for a stream. System messages stand apart.

    Raises:
        UsageError: a system message that is not text.
    """
    system, rest = without_system(messages)
    fields: dict[str, Any] = {"model": model, "messages": rest, "max_tokens": DEFAULT_MAX_TOKENS, "stream": True}
    if system:
        fields["system"] = system
    return fields | ({"tools": list(tools)} if tools else {})
