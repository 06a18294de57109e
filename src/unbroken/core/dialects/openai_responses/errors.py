"""Errors of the Responses format, nested, flat, or in a response that failed: reading and writing.

Sources: OpenAI API reference, "Responses: streaming events" (``error``); openai-dotnet #881 (``error`` nested or flat).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from unbroken.core.dialect import FinishMeaning, GatewayError
from unbroken.core.dialects.common.errors import error_body, error_document, error_of, read_error
from unbroken.core.dialects.openai_responses.finish_reasons import FINISH_REASONS
from unbroken.core.payload import mapping, text
from unbroken.core.sse import Event, encode

__all__ = [
    "ENDINGS",
    "ERRORS",
    "Json",
    "error_body",
    "error_event",
    "error_in",
    "event_kind",
    "failure",
    "read_error",
    "status_of",
]

Json: TypeAlias = Mapping[str, Any]

ENDINGS: Mapping[str, str] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.done": "completed",  # OpenRouter's documentation
}
"""The last event of a response, and the status that it means if it does not carry one."""

FAILURES = frozenset({"failed", "cancelled"})
"""Statuses of a response that failed."""

ERRORS = frozenset({"error", "response.error"})
"""Events that are an error, regardless of their data."""


def event_kind(answer: Json, event: Event) -> str:
    """Return the kind of an event: its data's ``type``, or else its name; the name of an error takes precedence."""
    kind = text(answer.get("type")) or event.type
    return event.type if event.type in ERRORS and kind not in ENDINGS else kind


def error_in(kind: str, answer: Json) -> Json | None:
    """Return the error that an event reports: nested, flat, or in a response that failed."""
    if kind in ERRORS:
        error = error_of(answer, "error")
    elif "type" not in answer or answer.get("object") == "error":
        error = error_of(answer)
    else:
        error = error_of({"error": answer.get("error")})
    if error is None and kind in ENDINGS:
        return failure(kind, mapping(answer.get("response")))
    if error is answer and text(answer.get("type")) in ERRORS:  # flat: that is the event's type, not the error's
        return {name: value for name, value in answer.items() if name != "type"}
    return error


def failure(kind: str, response: Json) -> Json | None:
    """Return why a response failed; ``None`` if it did not."""
    status = status_of(kind, response)
    if FinishMeaning.FAILED not in (FINISH_REASONS.get(status), FINISH_REASONS[ENDINGS[kind]]):
        return None
    return error_of({"error": response.get("error")}) or {"message": f"the response is {status}", "type": status}


def status_of(kind: str, response: Json) -> str:
    """Return the status of a response that has ended."""
    return text(response.get("status")) or ENDINGS[kind]


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream.

    OpenAI documents the fields next to ``type`` and sends them below ``error``; clients look in either place.
    """
    document = error.original or error_document(error)
    fields = {name: value for name, value in document["error"].items() if name != "type"}
    numbered = {"type": "error", "sequence_number": 0, **fields, **document}
    return encode(msgspec.json.encode(numbered).decode(), event="error")
