"""Access to JSON of any shape, from servers and from clients."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

DONE = b"[DONE]"
"""OpenAI's terminator, which servers of other dialects send too."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of reading JSON that is invalid or nested too deeply."""

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.S
)
"""An escape in a JSON string: a surrogate pair, half of one, or any other."""


def is_done(data: bytes) -> bool:
    """Return whether an event's data are OpenAI's terminator. Its SDKs stop at any data that begin with it."""
    return data.lstrip().startswith(DONE)


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
    """Return the object of a request's JSON, or ``None`` if it is not an object. Read as by :func:`json_value`."""
    try:
        return RequestBody(msgspec.json.decode(document, type=dict[str, msgspec.Raw]))
    except UNREADABLE:
        answer = _read(document)
        return RequestBody(answer) if isinstance(answer, dict) else None


def asks_for_stream(body: Mapping[str, Any]) -> bool:
    """Return whether a request's ``stream`` is set: servers that are lenient about types take ``"true"`` for true."""
    stream = body.get("stream")
    return stream is True or (isinstance(stream, str) and stream.strip().lower() == "true")


def json_object(document: bytes) -> dict[str, Any] | None:
    """Return the object of a JSON document, or ``None`` if it is not an object."""
    answer = _read(document)
    return answer if isinstance(answer, dict) else None


def only_object(document: bytes) -> dict[str, Any]:
    """Return the object of a document, also from a list of one (as Google wraps errors); else an empty object."""
    answer = _read(document)
    return mapping(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)


def json_value(document: bytes | bytearray) -> Any:
    """Return the value of a JSON document.

    Where the strict reader fails, a lenient one is asked. It reads what SDKs in Python and their servers write: ``NaN``
    and ``Infinity``, invalid UTF-8 (replaced, as WHATWG HTML, section 9.2 asks for events), and half of a surrogate
    pair (replaced: servers that cut between tokens send the halves of an emoji in two events).

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    try:
        return msgspec.json.decode(document)
    except UNREADABLE:
        return _lenient(document)


def is_document(document: bytes | bytearray) -> bool:
    """Return whether a document is complete JSON, read as by :func:`json_value`."""
    try:
        msgspec.json.decode(document, type=msgspec.Raw)
    except UNREADABLE:
        try:
            _lenient(document)
        except ValueError:
            return False
    return True


def _lenient(document: bytes | bytearray) -> Any:
    import json  # rarely needed

    text = document.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return json.loads(_ESCAPE.sub(lambda found: r"\ufffd" if found["half"] else found[0], text), strict=False)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def _read(document: bytes) -> Any:
    try:
        return json_value(document)
    except ValueError:
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


def whole(value: object) -> int | None:
    """Return a count, which servers also write as text or as ``3.0``; ``None`` for any other value."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return count(int(value)) if isinstance(value, float) and value.is_integer() else count(value)


def count(value: object) -> int | None:
    """Return a number of tokens, or an index; ``None`` if the value is not an integer of 0 or more."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
