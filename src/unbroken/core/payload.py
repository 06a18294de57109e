"""Looking into JSON that a server sent, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

DONE = b"[DONE]"
"""OpenAI's terminator, which servers of other dialects send too."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises where it is none, or is nested absurdly deep."""


def json_object(document: bytes) -> dict[str, Any] | None:
    """The object that a document is, ``None`` where it is none."""
    answer = _read(document)
    return answer if isinstance(answer, dict) else None


def only_object(document: bytes) -> dict[str, Any]:
    """The object that a document is, or holds in a list of its own, as Google wraps errors; else an empty one."""
    answer = _read(document)
    return mapping(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)


def _read(document: bytes) -> Any:
    try:
        return msgspec.json.decode(document)
    except UNREADABLE:
        return None


def filled(value: object) -> bool:
    """Whether there is anything in it: nested emptiness (``{"arguments": ""}``) is still empty."""
    if isinstance(value, dict):
        return any(filled(inner) for inner in value.values())
    if isinstance(value, list):
        return any(filled(inner) for inner in value)
    return value not in (None, "", False)


def dicts(value: object) -> Iterator[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def mapping(value: object) -> dict[str, Any]:
    """The object, or an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """The string, or ``""`` where it is none."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """A number of tokens, or an index; ``None`` where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
