"""Which of Anthropic's models continue a message of the assistant.

Sources: Anthropic docs, "Prefill Claude's response" (not with extended thinking; no white space at the end) and "What's
new in Claude 4.6" (from Opus 4.6 and Sonnet 4.6 on a last message of the assistant is answered by 400).
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
"""Matches the version in a name such as ``claude-3-5-haiku-20241022`` or ``us.anthropic.claude-opus-4-6-v1``."""

_LAST = (4, 5)
"""The last version that takes a prefill."""


def is_claude(model: str) -> bool:
    """Return whether a model is one of Anthropic's, by its name at any provider."""
    return "claude" in model.lower()


def refusal_of_prefill(model: str, *, thinks: bool) -> str:
    """Return why a model does not continue a message of the assistant, ``""`` if it does or nothing is known.

    Args:
        model: its name, or a path with its name in it.
        thinks: whether the request turns thinking on.
    """
    found = _VERSION.search(model.lower())
    if found and (int(found[1]), int(found[2] or 0)) > _LAST:
        return f"{found[0]} does not continue a message of the assistant (Anthropic's models do up to 4.5)"
    return "a message of the assistant is not continued with thinking on" if thinks else ""
