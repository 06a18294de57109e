"""Access to JSON of any shape that a server sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

DONE = b"[DONE]"
"""OpenAI's terminator, which servers of other dialects send too."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of reading JSON that is invalid or nested too deeply."""


def json_object(document: bytes) -> dict[str, Any] | None:
    """Return the object of a JSON document, or ``None`` if it is not an object."""
    answer = _read(document)
    return answer if isinstance(answer, dict) else None


def only_object(document: bytes) -> dict[str, Any]:
    """Return the object of a document, also from a list of one (as Google wraps errors); else an empty object."""
    answer = _read(document)
    return mapping(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)


def _read(document: bytes) -> Any:
    try:
        return msgspec.json.decode(document)
    except UNREADABLE:
        return None


def filled(value: object) -> bool:
    """Return whether a value contains anything: nested emptiness (``{"arguments": ""}``) is still empty."""
    if isinstance(value, dict):
        return any(filled(inner) for inner in value.values())
    if isinstance(value, list):
        return any(filled(inner) for inner in value)
    return value not in (None, "", False)


def dicts(value: object) -> Iterator[dict[str, Any]]:
    """Return the objects in a list; none if the value is not a list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is an object, else an empty object."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """Return the value if it is a string, else ``""``."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """Return a number of tokens, or an index; ``None`` if the value is not an integer of 0 or more."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
