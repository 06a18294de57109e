"""Google's errors: reading and writing.

Sources: ``google.rpc.Status`` and ``google.rpc.Code``. What they mean is said in :mod:`..common.google`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.core.dialect import GatewayError
from unbroken.core.dialects.common import error_shapes
from unbroken.core.dialects.common.google import judged
from unbroken.core.events import Failed
from unbroken.core.payload import only_object
from unbroken.core.sse import encode


def read_error(status: int, body: bytes) -> Failed:
    """Read an error response; it is in a list if the request was for a JSON array. Any other body is not quoted."""
    document = only_object(body)
    return judged(error_of(document) or error_shapes.flat(document), status)


def error_in(document: bytes) -> Failed | None:
    """Return the error that a document of a stream, or of a 2xx, reports; ``None`` if it reports none."""
    error = error_of(only_object(document))
    return None if error is None else judged(error)


def error_of(answer: Mapping[str, Any], event_type: str = "message") -> dict[str, Any] | None:
    """Return the error that an event or a document reports; ``None`` if it reports none."""
    return error_shapes.error_of(answer, event_type, content="candidates")


# Writing

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}


def error_document(error: GatewayError) -> dict[str, Any]:
    """Return an error as Google's clients expect it."""
    status = _CODES.get(error.status, "UNAVAILABLE" if error.status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": error.status, "message": error.message, "status": status}}


def error_body(error: GatewayError) -> bytes:
    """Encode the document as the body of a response."""
    return msgspec.json.encode(error_document(error))


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream."""
    return encode(msgspec.json.encode(error.original or error_document(error)).decode())
