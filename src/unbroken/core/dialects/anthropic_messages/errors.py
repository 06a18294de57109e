"""Anthropic's errors: reading and writing.

Sources: Anthropic API docs, "Errors" and "Streaming messages: error events". Servers that imitate Anthropic often
report errors as OpenAI does (llama.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.core.dialect import GatewayError
from unbroken.core.dialects.common import error_shapes
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.events import Failed
from unbroken.core.payload import mapping, only_object, text
from unbroken.core.sse import encode

_TRANSIENT = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
_SPENT = re.compile(r"spend_limit_reached|billing_unavailable")
_SPENT_WORDS = re.compile(r"credit balance is too low", re.I)


def read_error(status: int, body: bytes) -> Failed:
    """Read an error response in Anthropic's format or a similar one; any other body is not quoted."""
    document = only_object(body)
    return judged(error_of(document) or error_shapes.flat(document), status)


def error_in(document: bytes) -> Failed | None:
    """Return the error that a document of a stream, or of a 2xx, reports; ``None`` if it reports none."""
    error = error_of(only_object(document))
    return None if error is None else judged(error)


def judged(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """Convert an error to a :class:`Failed`.

    A status takes precedence over a type; without a status, Anthropic's types decide. Servers that imitate Anthropic
    often report errors as OpenAI does (llama.cpp), so other errors are judged like OpenAI's.
    """
    said = failed(error, status)
    code = text(mapping(error.get("details")).get("error_code"))
    if said.kind == "billing_error" or _SPENT.search(code) or _SPENT_WORDS.search(said.message):
        return Failed(said.message, said.kind, transient=False)
    if status is None and said.kind in _TRANSIENT:
        return msgspec.structs.replace(said, transient=True)
    return said


def error_of(answer: Mapping[str, Any], event_type: str = "message") -> dict[str, Any] | None:
    """Return the error that an event or a document reports; ``None`` if it reports none."""
    return error_shapes.error_of(answer, event_type, content="content")


# Writing

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_document(error: GatewayError) -> dict[str, Any]:
    """Return an error as Anthropic's clients expect it."""
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def error_body(error: GatewayError) -> bytes:
    """Encode the document as the body of a response."""
    return msgspec.json.encode(error_document(error))


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream."""
    return encode(msgspec.json.encode(error.original or error_document(error)).decode(), event="error")
