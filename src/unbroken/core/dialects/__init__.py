"""The dialects, one package each, and the choice of one for a request: by method, path and body, never by host.

A dialect is imported when it is first asked for: a program mostly speaks one.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from unbroken.core.dialect import Call, Dialect
from unbroken.core.http import Request
from unbroken.errors import UsageError

if TYPE_CHECKING:
    DEFAULT: Dialect
    """The dialect of a server for which no other is given, and of errors that belong to no dialect."""

_HOMES = {
    "openai-chat": ("openai_chat", "OPENAI_CHAT"),
    "openai-responses": ("openai_responses", "OPENAI_RESPONSES"),
    "anthropic-messages": ("anthropic_messages", "ANTHROPIC_MESSAGES"),
    "gemini": ("gemini", "GEMINI"),
    "interactions": ("interactions", "INTERACTIONS"),
    "openai-completions": ("openai_completions", "OPENAI_COMPLETIONS"),
}
"""The package of each dialect, and the name of the dialect in it. The first is the default."""


class Dialects(Collection[Dialect]):
    """Every dialect, tried in this order. A dialect that is appended here works in client, transports and relay."""

    def __init__(self) -> None:
        self._appended: list[Dialect] = []

    @property
    def names(self) -> list[str]:
        """The names of all of them."""
        return [*_HOMES, *(dialect.name for dialect in self._appended)]

    def __iter__(self) -> Iterator[Dialect]:
        yield from map(_imported, _HOMES)
        yield from self._appended

    def __len__(self) -> int:
        return len(_HOMES) + len(self._appended)

    def __contains__(self, dialect: object) -> bool:
        return any(dialect is known for known in self)

    def append(self, dialect: Dialect) -> None:
        """Add a dialect behind all others."""
        self._appended.append(dialect)

    def remove(self, dialect: Dialect) -> None:
        """Remove a dialect that was appended."""
        self._appended.remove(dialect)

    def find(self, name: str) -> Dialect | None:
        """Return the dialect of this name, ``None`` if there is none."""
        if name in _HOMES:
            return _imported(name)
        return next((dialect for dialect in self._appended if dialect.name == name), None)


@cache
def _imported(name: str) -> Dialect:
    package, constant = _HOMES[name]
    dialect: Dialect = getattr(importlib.import_module(f"{__name__}.{package}"), constant)
    return dialect


DIALECTS = Dialects()


def __getattr__(name: str) -> Any:
    if name == "DEFAULT":
        return _imported(next(iter(_HOMES)))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    if dialect := DIALECTS.find(name):
        return dialect
    raise UsageError(f"unknown dialect {name!r}; known are {', '.join(DIALECTS.names)}")


def credential_headers() -> frozenset[bytes]:
    """Return the names, in lower case, of the headers in which clients of any dialect send keys."""
    return frozenset(name.encode() for dialect in DIALECTS for name in dialect.credential_headers)


def credential_parameters() -> frozenset[str]:
    """Return the names of the query parameters in which clients of any dialect send keys."""
    return frozenset(dialect.credential_parameter for dialect in DIALECTS) - {""}


def versions() -> frozenset[str]:
    """Return the versions with which the paths of any dialect may begin."""
    return frozenset(version for dialect in DIALECTS for version in dialect.versions)
