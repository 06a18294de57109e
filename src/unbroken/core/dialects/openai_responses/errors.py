"""Errors of the Responses format, nested, flat, or in a response that failed: reading and writing.

Sources: OpenAI API reference, "Responses: streaming events" (``error``); openai-dotnet #881 (``error`` nested or flat).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from unbroken.core.dialect import FinishMeaning, GatewayError, finish_meaning
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, failing_reason
from unbroken.core.dialects.common.errors import error_document
from unbroken.core.dialects.openai_responses.finish_reasons import FINISH_REASONS
from unbroken.core.events import Failed
from unbroken.core.payload import mapping, only_object, text
from unbroken.core.sse import Event, encode

Json: TypeAlias = Mapping[str, Any]

ENDINGS: Mapping[str, str] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.done": "completed",  # OpenRouter's documentation
}
"""The last event of a response, and the status that it means if it does not carry one."""

ERRORS = frozenset({"error", "response.error"})
"""Events that are an error, regardless of their data."""


def event_kind(answer: Json, event: Event) -> str:
    """Return the kind of an event: its data's ``type``, or else its name; the name of an error takes precedence."""
    kind = text(answer.get("type")) or event.type
    return event.type if event.type in ERRORS and kind not in ENDINGS else kind


def error_in(document: bytes) -> Failed | None:
    """Return the error that a document of a stream, or of a 2xx, reports; ``None`` if it reports none."""
    answer = only_object(document)
    kind = text(answer.get("type")) or ("response.done" if answer.get("object") == "response" else "message")
    error = error_of_event(kind, {"response": answer, **answer} if kind == "response.done" else answer)
    return None if error is None else failed(error)


def error_of_event(kind: str, answer: Json) -> Json | None:
    """Return the error that an event reports: nested, flat, or in a response that failed."""
    if kind in ERRORS or "type" not in answer or answer.get("object") == "error":
        named = {name: value for name, value in answer.items() if name != "type" or text(value) not in ERRORS}
        error = error_of(named, "error" if kind in ERRORS else "message", content="output")
    else:
        error = error_of({"error": answer.get("error")})
    if error is None and kind in ENDINGS:
        return failure(kind, mapping(answer.get("response")))
    return error


def failure(kind: str, response: Json) -> Json | None:
    """Return why a response failed; ``None`` if it did not."""
    reason, status = reason_of(kind, response), status_of(kind, response)
    if FinishMeaning.FAILED not in [finish_meaning(FINISH_REASONS, name) for name in (reason, status, ENDINGS[kind])]:
        return None
    if error := error_of({"error": response.get("error")}):
        return error
    is_status = reason in ENDINGS.values()
    return {"message": f"the response is {reason}", "type": reason} if is_status else failing_reason(reason)


def status_of(kind: str, response: Json) -> str:
    """Return the status of a response that has ended."""
    return text(response.get("status")) or ENDINGS[kind]


def reason_of(kind: str, response: Json) -> str:
    """Return the reason why a response is incomplete, or else its status."""
    return text(mapping(response.get("incomplete_details")).get("reason")) or status_of(kind, response)


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream.

    OpenAI documents the fields next to ``type`` and sends them below ``error``; clients look in either place.
    """
    document = error.original or error_document(error)
    fields = {name: value for name, value in document["error"].items() if name != "type"}
    numbered = {"type": "error", "sequence_number": 0, **fields, **document}
    return encode(msgspec.json.encode(numbered).decode(), event="error")
