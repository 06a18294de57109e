"""System messages of a conversation, for dialects that have a separate field for them."""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.core.dialect import Message
from unbroken.errors import UsageError


def without_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return the text of the system messages, and the other messages.

    Raises:
        UsageError: a system message that is not text.
    """
    system = [message for message in messages if message.get("role") == "system"]
    texts = [message["content"] for message in system if isinstance(message.get("content"), str)]
    if len(texts) != len(system):
        raise UsageError("a system message's content must be text in this dialect")
    return "\n\n".join(texts), [message for message in messages if message.get("role") != "system"]
