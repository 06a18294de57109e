"""Errors in OpenAI's format or a similar one: reading and writing.

:mod:`.error_shapes` says where the parts of an error are, :mod:`.error_judgement` what they mean.
"""

from __future__ import annotations

from typing import Any

import msgspec

from unbroken.core.dialect import GatewayError
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, flat
from unbroken.core.events import Failed
from unbroken.core.payload import only_object
from unbroken.core.sse import encode


def read_error(status: int, body: bytes) -> Failed:
    """Read an error response in OpenAI's format or a similar one; any other body is not quoted."""
    document = only_object(body)
    return failed(error_of(document) or flat(document), status)


def error_in(document: bytes) -> Failed | None:
    """Return the error that a document of a stream, or of a 2xx, reports; ``None`` if it reports none."""
    error = error_of(only_object(document))
    return None if error is None else failed(error)


# Writing


def error_document(error: GatewayError) -> dict[str, Any]:
    """Return an error as OpenAI's clients expect it."""
    return {"error": {"message": error.message, "type": "unbroken_error", "param": None, "code": error.code}}


def error_body(error: GatewayError) -> bytes:
    """Encode the document as the body of a response."""
    return msgspec.json.encode(error_document(error))


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream."""
    return encode(msgspec.json.encode(error.original or error_document(error)).decode())
