"""Errors in OpenAI's format or a similar one: where they are, whether they are transient, and how to write one.

Sources: OpenAI API reference, "Error codes"; OpenRouter docs, "Errors"; DeepSeek API docs, "Error codes"; Google's
``google.rpc.Status``; vLLM, SGLang, llama.cpp and FastAPI, as recorded in ``tests/corpora``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from unbroken.core.dialect import FinishMeaning, GatewayError, Signal
from unbroken.core.events import Failed
from unbroken.core.payload import UNREADABLE, json_object
from unbroken.core.sse import encode
from unbroken.errors import MalformedEvent

EXHAUSTED = frozenset(
    {"insufficient_quota", "insufficient_balance", "billing_hard_limit_reached", "billing_not_active"}
    | {"usage_limit_reached", "usage_not_included", "credit_balance_exhausted"}
)
"""Error types and codes that mean an exhausted quota or balance, regardless of the status."""

_EXHAUSTED_WORDS = re.compile(r"insufficient (balance|quota|credit)|not enough credits", re.I)

_TRANSIENT_KINDS = re.compile(
    r"overloaded|rate.?limit|too.?many.?requests|server.?error|internal|unavailable|timeout|timed.?out|capacity"
    r"|try.?again|slow.?down|bad.?gateway|upstream|engine|provider.?(error|disconnect)",
    re.I,
)
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rf"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})


def parsed(data: bytes, event_type: str = "message") -> Any:
    """Return the JSON of an event's data; an ``error`` event may also carry a bare message, as JSON or as text.

    Raises:
        MalformedEvent: the data is not JSON.
    """
    if event_type != "error":
        return _json(data)
    try:
        answer = _json(data)
    except MalformedEvent:
        answer = data.decode("utf-8", "replace")
    return answer if isinstance(answer, dict) else {"message": str(answer)}


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        pass
    # Replace invalid UTF-8, as the event stream's format asks (WHATWG HTML, section 9.2), and half of a surrogate pair:
    # servers that cut between tokens send the halves of an emoji in two events.
    text = _LONE_SURROGATE.sub(r"\\ufffd", data.decode("utf-8", "replace"))
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        raise MalformedEvent("an event's data is not JSON") from None


def read_error(status: int, body: bytes) -> Failed:
    """Read an error response in OpenAI's format or a similar one; any other body is not quoted."""
    answer = json_object(body)
    return failed((error_of(answer) if answer else None) or {}, status)


def error_of(answer: Mapping[str, Any], event_type: str = "message") -> Mapping[str, Any] | None:
    """Return the error that an object reports: nested, flat with ``object: error`` or ``detail``, or a bare string."""
    if error := answer.get("error"):
        return error if isinstance(error, Mapping) else {"message": str(error)}
    if answer.get("object") == "error" or event_type == "error" or ("detail" in answer and "choices" not in answer):
        return answer
    return None


def error_of_choice(choice: Mapping[str, Any], finish_reasons: Mapping[str, FinishMeaning]) -> Mapping[str, Any] | None:
    """Return an error inside a choice (OpenRouter), or for a finish reason that means one."""
    reason = choice.get("finish_reason")
    if error := error_of({"error": choice.get("error")}):
        return error
    if isinstance(reason, str) and finish_reasons.get(reason) is FinishMeaning.FAILED:
        return {"message": f"the provider ended the answer with {reason}", "type": reason, "code": 500}
    return None


def severity(error: Mapping[str, Any]) -> Signal:
    """Return what an error means to the rule."""
    return Signal.TRANSIENT_ERROR if failed(error).transient else Signal.PERMANENT_ERROR


def failed(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """Convert an error to a :class:`Failed`; an unknown one is permanent unless its status says otherwise."""
    message = _text(error.get("message")) or _text(error.get("detail"))
    names = [name for key in ("type", "code", "status") if (name := _text(error.get(key)))]
    kind = next((name for name in names if not name.isdecimal()), names[0] if names else "")
    codes = [int(name) for name in names if len(name) == 3 and name.isdecimal()] + ([status] if status else [])
    exhausted = not EXHAUSTED.isdisjoint(name.lower() for name in names) or bool(_EXHAUSTED_WORDS.search(message))
    transient = not exhausted and _may_pass(codes, names, message)
    return Failed(message or (f"HTTP {status}" if status else "the provider reported an error"), kind, transient)


def _may_pass(codes: Sequence[int], names: Sequence[str], message: str) -> bool:
    if codes:
        return any(code in _TRANSIENT_STATUSES or 500 <= code <= 599 for code in codes)
    if any(_TRANSIENT_KINDS.search(name) for name in names):
        return True
    return not names and bool(_TRANSIENT_KINDS.search(message))


def _text(value: object) -> str:
    if isinstance(value, int) and abs(value) < 10**9:  # a code; Python refuses to format very long integers
        return str(value)
    return value if isinstance(value, str) else ""


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
