"""Access to JSON of any shape, from servers and from clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

DONE = b"[DONE]"
"""OpenAI's terminator, which servers of other dialects send too."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of reading JSON that is invalid or nested too deeply."""


class RequestBody(Mapping[str, Any]):
    """The JSON object of a request, whose values are decoded when they are looked at: some are many megabytes.

    Args:
        fields: the values by name, decoded or not.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> Any:
        value = self._fields[name]
        if isinstance(value, msgspec.Raw):
            value = self._fields[name] = _read(bytes(value))
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def is_list(self, name: str) -> bool:
        """Return whether a value is a list, without decoding it."""
        value = self._fields.get(name)
        return bytes(memoryview(value)[:1]) == b"[" if isinstance(value, msgspec.Raw) else isinstance(value, list)

    def objects(self, name: str) -> Iterator[RequestBody]:
        """Return the objects of a list, whose values are not decoded; none if the value is not a list."""
        value = self._fields.get(name)
        if isinstance(value, msgspec.Raw):
            try:
                return map(RequestBody, msgspec.json.decode(value, type=list[dict[str, msgspec.Raw]]))
            except UNREADABLE:
                value = self[name]
        return map(RequestBody, dicts(value))


def request_body(document: bytes) -> RequestBody | None:
    """Return the object of a request's JSON, or ``None`` if it is not an object.

    Python's reader is asked where the strict one fails: it takes ``NaN`` and half of a surrogate pair, which Python's
    own clients write.
    """
    try:
        return RequestBody(msgspec.json.decode(document, type=dict[str, msgspec.Raw]))
    except UNREADABLE:
        answer = _read(document)
        return RequestBody(answer) if isinstance(answer, dict) else None


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
        import json  # rarely needed

        try:
            return json.loads(document)
        except (ValueError, RecursionError):
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
