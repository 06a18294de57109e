"""The dialects, one package each, and the choice of one for a request: by method, path and body, never by host."""

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
"""Every dialect, tried in this order. A dialect that is appended here works in client, transports and relay."""

DEFAULT = OPENAI_CHAT
"""The dialect of a server for which no other is given, and of errors that belong to no dialect."""


def recognise(request: Request) -> Call | None:
    """Return the generation call that a request makes, or ``None`` for a request to pass through untouched."""
    for dialect in DIALECTS:
        if call := dialect.recognise(request):
            return call
    return None


def dialect_at(method: str, path: str) -> Dialect | None:
    """Return the dialect whose generation calls are made with this method at this path, or ``None``."""
    return next((dialect for dialect in DIALECTS if method == "POST" and dialect.serves(path)), None)


def find_dialect(name: str) -> Dialect:
    """Return the dialect of this name.

    Raises:
        UsageError: no dialect has this name; the message lists the dialects.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    known = ", ".join(dialect.name for dialect in DIALECTS)
    raise UsageError(f"unknown dialect {name!r}; known are {known}")


def credential_headers() -> frozenset[bytes]:
    """Return the names, in lower case, of the headers in which clients of any dialect send keys."""
    return frozenset(name.encode() for dialect in DIALECTS for name in dialect.credential_headers)


def credential_parameters() -> frozenset[str]:
    """Return the names of the query parameters in which clients of any dialect send keys."""
    return frozenset(dialect.credential_parameter for dialect in DIALECTS) - {""}


def versions() -> frozenset[str]:
    """Return the versions with which the paths of any dialect may begin."""
    return frozenset(version for dialect in DIALECTS for version in dialect.versions)
