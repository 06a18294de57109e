"""Errors of interactions, as events, as bodies, or in an interaction that failed: reading and writing.

Sources: Gemini API docs, "Streaming interactions: error"; Gemini API reference, "Interaction: errors"; the errors of
the ``google-genai`` SDK 3.4 (``CreateInteractionClientError``), whose ``code`` is a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from unbroken.core.dialect import FinishMeaning, GatewayError, finish_meaning
from unbroken.core.dialects.common import error_shapes
from unbroken.core.dialects.common.google import judged
from unbroken.core.dialects.interactions.finish_reasons import FINISH_REASONS, LIMITED, WHOLE
from unbroken.core.events import Failed
from unbroken.core.payload import filled, mapping, only_object, text
from unbroken.core.sse import Event, encode

Json: TypeAlias = Mapping[str, Any]

ENDINGS = frozenset({"interaction.completed", "interaction.complete"})
"""The last event of an interaction; the second is its name until May 2026."""

UPDATES = frozenset(
    {"interaction.status_update", *(f"interaction.{status}" for status in (*WHOLE, *LIMITED))} - ENDINGS
)
"""Events that report a status; the guide to the changes of May 2026 names some after it."""


def event_kind(answer: Json, event: Event) -> str:
    """Return the kind of an event: its data's ``event_type``, or else its name; the name of an error comes first."""
    kind = text(answer.get("event_type")) or _typed(answer) or event.type
    return event.type if event.type == "error" and kind not in ENDINGS else kind


def _typed(answer: Json) -> str:
    kind = text(answer.get("type"))
    return kind if "." in kind else ""


def interaction_of(answer: Json) -> Json:
    """Return the interaction that an event carries; some carry its fields themselves."""
    return mapping(answer.get("interaction")) or answer


def status_of(kind: str, answer: Json) -> str:
    """Return the status with which an event says that the interaction has ended, ``""`` if it does not.

    A failing status that is only an update is not one of them: the last event, or an error, says why.
    """
    if kind in ENDINGS:
        return text(interaction_of(answer).get("status")) or "completed"
    if kind not in UPDATES:
        return ""
    status = text(answer.get("status")) or kind.removeprefix("interaction.")
    return status if status in (*WHOLE, *LIMITED) else ""


def read_error(status: int, body: bytes) -> Failed:
    """Read an error response; it is in a list if the request was for a JSON array. Any other body is not quoted."""
    document = only_object(body)
    return judged(error_shapes.error_of(document) or error_shapes.flat(document), status)


def error_in(document: bytes) -> Failed | None:
    """Return the error that a document of a stream, or of a 2xx, reports; ``None`` if it reports none."""
    answer = only_object(document)
    kind = text(answer.get("event_type")) or ("interaction.completed" if is_interaction(answer) else "message")
    error = error_of_event(kind, answer)
    return None if error is None else judged(error)


def is_interaction(answer: Json) -> bool:
    """Return whether a document is an interaction, and not an event of one."""
    return answer.get("object") == "interaction" or not answer.keys().isdisjoint({"steps", "outputs"})


def says_nothing(kind: str, answer: Json) -> bool:
    """Return whether an event is an ``error`` without an error: the API sends such events, and then goes on."""
    return kind == "error" and not any(filled(value) for name, value in answer.items() if name not in _ENVELOPE)


_ENVELOPE = frozenset({"event_type", "event_id", "type", "metadata"})


def error_of_event(kind: str, answer: Json, step_error: Json | None = None) -> Json | None:
    """Return the error that an event reports, or that made an interaction fail; ``None`` if it reports none.

    Args:
        kind: of the event.
        answer: its data.
        step_error: the error of a step before it.
    """
    if kind in ENDINGS:
        return _failure(kind, answer, step_error)
    if kind == "error":
        return None if says_nothing(kind, answer) else error_shapes.error_of(answer, "error")
    if "event_type" in answer:
        return error_shapes.error_of({"error": answer.get("error")})
    return error_shapes.error_of(answer, content="steps")


def _failure(kind: str, answer: Json, step_error: Json | None) -> Json | None:
    """Return why an interaction failed; ``None`` if it did not."""
    interaction = interaction_of(answer)
    status = status_of(kind, answer)
    if finish_meaning(FINISH_REASONS, status) is not FinishMeaning.FAILED:
        return None
    told = {name: interaction.get(name) for name in ("error", "errors")}
    unexplained = {"message": f"the interaction is {status}", "type": status}
    return error_shapes.error_of(told) or (step_error and error_shapes.flat(step_error)) or unexplained


# Writing

_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    429: "too_many_requests",
    504: "gateway_timeout",
}


def error_document(error: GatewayError) -> dict[str, Any]:
    """Return an error as Google's clients expect it."""
    code = _CODES.get(error.status, "service_unavailable" if error.status >= 500 else "invalid_request")
    return {"error": {"message": error.message, "code": code}}


def error_body(error: GatewayError) -> bytes:
    """Encode the document as the body of a response."""
    return msgspec.json.encode(error_document(error))


def error_event(error: GatewayError) -> bytes:
    """Encode the document, or the provider's own, as an event of a stream."""
    document = {**(error.original or error_document(error)), "event_type": "error"}
    return encode(msgspec.json.encode(document).decode(), event="error")
