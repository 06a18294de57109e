"""Looking into JSON that a server sent, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


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
