"""The dialects, one package each, and how a request finds its own: by method, path and body, never by host."""

from __future__ import annotations

from unbroken.core.dialect import Call, Dialect
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.http import Request
from unbroken.errors import UsageError

DIALECTS: list[Dialect] = [OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC_MESSAGES, GEMINI, OPENAI_COMPLETIONS]
"""Every dialect, asked in this order. A dialect that is appended here works in client, transports and relay."""

DEFAULT = OPENAI_CHAT
"""The dialect of a server of which nothing else is said, and of errors that belong to no dialect."""


def recognise(request: Request) -> Call | None:
    """The generation call that a request makes, or ``None``: then it passes through untouched."""
    for dialect in DIALECTS:
        if call := dialect.recognise(request):
            return call
    return None


def dialect_at(method: str, path: str) -> Dialect | None:
    """The dialect whose generation calls are made with this method at this path, ``None`` where there is none."""
    return next((dialect for dialect in DIALECTS if method == "POST" and dialect.serves(path)), None)


def find_dialect(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    known = ", ".join(dialect.name for dialect in DIALECTS)
    raise UsageError(f"unknown dialect {name!r}; known are {known}")


def credential_headers() -> frozenset[bytes]:
    """Names, in lower case, of the headers in which clients of any dialect send keys."""
    return frozenset(name.encode() for dialect in DIALECTS for name in dialect.credential_headers)


def credential_parameters() -> frozenset[str]:
    """Names of the query parameters in which clients of any dialect send keys."""
    return frozenset(dialect.credential_parameter for dialect in DIALECTS) - {""}


def versions() -> frozenset[str]:
    """What the paths of any dialect may begin with, below the host."""
    return frozenset(version for dialect in DIALECTS for version in dialect.versions)
