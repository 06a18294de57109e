"""Merging of the fields of deltas that no table knows, so that they come back in the conversation.

DeepSeek and Kimi demand ``reasoning_content`` back after a tool call, Google the signature in ``extra_content``,
OpenRouter ``reasoning_details``; others will follow. OpenRouter docs, "Reasoning tokens", says how pieces are joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONSTANT = frozenset(
    {"index", "type", "id", "role", "name", "format", "object", "model", "status", "url", "title", "mime_type"}
    | {"signature", "thought_signature", "call_id", "tool_call_id", "language", "version"}
)
"""Fields whose text is sent whole: a later one replaces an earlier one."""


class TextPieces(list[str]):
    """Text that comes in pieces."""


def merged(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the fields of a delta into those before it, in place. :func:`plain` returns the result.

    Text appends, except for constants; objects merge by name, lists by ``index``; the rest replaces.
    """
    for name, value in new.items():
        if value is not None:
            old[name] = _merged(old.get(name), value, name)
    return old


def plain(value: Any) -> Any:
    """Return a merged value as plain JSON: pieces of text are joined."""
    if isinstance(value, TextPieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def append_part(parts: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    """Append a part of a list of contents (Mistral's ``text`` and ``thinking``); text continues a part of its type."""
    last = parts[-1] if parts else {}
    text, thinking = last.get("text"), last.get("thinking")
    goes_on = last.keys() == part.keys() and last.get("type") == part.get("type")
    if goes_on and last.keys() == {"type", "text"} and isinstance(text, TextPieces) and isinstance(part["text"], str):
        text.append(part["text"])
    elif goes_on and last.keys() == {"type", "thinking"} and type(thinking) is list is type(part["thinking"]):
        for inner in part["thinking"]:
            if isinstance(inner, Mapping):
                append_part(thinking, inner)
    else:
        parts.append(_opened(part))


def _opened(part: Mapping[str, Any]) -> dict[str, Any]:
    opened = merged({}, part)
    if isinstance(part.get("thinking"), list):
        opened["thinking"] = []
        for inner in part["thinking"]:
            if isinstance(inner, Mapping):
                append_part(opened["thinking"], inner)
    return opened


def _merged(old: Any, new: Any, name: str) -> Any:
    if isinstance(new, str) and name not in _CONSTANT:
        pieces = old if isinstance(old, TextPieces) else TextPieces()
        pieces.append(new)
        return pieces
    if isinstance(new, str):
        return new or old or ""
    if isinstance(new, Mapping):
        return merged(old if isinstance(old, dict) else {}, new)
    if isinstance(new, list):
        items = old if isinstance(old, list) and not isinstance(old, TextPieces) else []
        for item in new:
            _add_item(items, item, name)
        return items
    return new


def _add_item(items: list[Any], item: Any, name: str) -> None:
    index = item.get("index") if isinstance(item, Mapping) else None
    if isinstance(index, int):
        for known in items:
            if isinstance(known, dict) and known.get("index") == index:
                merged(known, item)
                return
    items.append(_merged(None, item, name))
