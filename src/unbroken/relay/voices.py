"""What the relay itself says, in the words of each dialect: heartbeats, errors as a body, errors as an event.

Sources: OpenAI API reference, "Error codes" and "Streaming events" (Responses); Anthropic API, "Errors" and "Streaming
messages"; Google's ``google.rpc.Status`` and ``google.rpc.Code``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

COMMENT = b": unbroken\n\n"
"""A comment of an event stream, which readers skip, and the blank line without which some would wait."""

_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_GOOGLE_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """An error of the relay's own making.

    Attributes:
        status: the HTTP status that says it best, also where it is too late for one.
        code: stable machine-readable name, such as ``"stream_cut"``.
        message: for a person.
        passing: whether asking again may help; otherwise the relay has done that already.
        said: the provider's own error object, where it sent one.
    """

    status: int
    code: str
    message: str
    passing: bool = False
    said: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Voice:
    """How a dialect's clients are spoken to.

    Attributes:
        heartbeat: what may be sent between events at any time and means nothing; ``b""`` where nothing is harmless.
        error: an error as the object that clients of the dialect expect as a body.
        event: the same as an event inside a stream, given that object.
    """

    heartbeat: bytes
    error: Callable[[Trouble], Mapping[str, Any]]
    event: Callable[[Mapping[str, Any]], bytes]

    def body(self, trouble: Trouble) -> bytes:
        """The error as a JSON document."""
        return msgspec.json.encode(self.error(trouble))

    def in_band(self, trouble: Trouble) -> bytes:
        """The error as an event."""
        return self.event(trouble.said or self.error(trouble))


def _openai_error(trouble: Trouble) -> Mapping[str, Any]:
    return {"error": {"message": trouble.message, "type": "unbroken_error", "param": None, "code": trouble.code}}


def _anthropic_error(trouble: Trouble) -> Mapping[str, Any]:
    kind = _ANTHROPIC_KINDS.get(trouble.status, "api_error" if trouble.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": trouble.message}}


def _google_error(trouble: Trouble) -> Mapping[str, Any]:
    status = _GOOGLE_CODES.get(trouble.status, "UNAVAILABLE" if trouble.status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": trouble.status, "message": trouble.message, "status": status}}


def _data(error: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(error) + b"\n\n"


def _named(error: Mapping[str, Any]) -> bytes:
    return b"event: error\n" + _data(error)


def _numbered(error: Mapping[str, Any]) -> bytes:
    # OpenAI documents the fields beside ``type`` and sends them below ``error``; clients look in either place.
    fields = {name: value for name, value in error["error"].items() if name != "type"}
    return _named({"type": "error", "sequence_number": 0, **fields, **error})


_OPENAI = Voice(COMMENT, _openai_error, _data)

VOICES: Mapping[str, Voice] = {
    "openai-chat": _OPENAI,
    "openai-completions": _OPENAI,
    "openai-responses": Voice(COMMENT, _openai_error, _numbered),
    "anthropic-messages": Voice(b'event: ping\ndata: {"type": "ping"}\n\n', _anthropic_error, _named),
    # Google's SDK takes a comment for the beginning of a bare JSON error.
    "gemini": Voice(b"", _google_error, _data),
}
"""By name of the dialect."""


def voice_of(dialect: str | None) -> Voice:
    """The voice of a dialect; OpenAI's, which most clients understand, where there is none."""
    return VOICES.get(dialect or "", _OPENAI)
