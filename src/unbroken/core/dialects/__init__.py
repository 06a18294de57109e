"""The dialects, and how a request finds its own: by method, path and body, never by host."""

from __future__ import annotations

from unbroken.core.dialect import Call, Dialect
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.http import Request

DIALECTS: tuple[Dialect, ...] = (OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC_MESSAGES, GEMINI, OPENAI_COMPLETIONS)
"""Every dialect, asked in this order."""


def dialect_at(method: str, path: str) -> Dialect | None:
    """The dialect whose generation calls are made so and there, by method and path alone; ``None`` where none is."""
    return next((dialect for dialect in DIALECTS if method == "POST" and dialect.serves(path)), None)


def recognise(request: Request) -> Call | None:
    """The generation call that a request makes, or ``None``: then it passes through untouched."""
    for dialect in DIALECTS:
        if call := dialect.recognise(request):
            return call
    return None
