"""The shapes in which servers report an error inside a JSON document, and where its parts are.

Sources: OpenAI API reference, "Error codes"; OpenRouter docs, "Errors"; MiniMax docs, "Error codes" (``base_resp``);
Baidu Qianfan docs, "Error codes" (``error_code``, ``error_msg``); Alibaba Model Studio docs, "Error messages"
(``code``, ``message``); FastAPI docs, "Handling errors" (``detail``); RFC 9457; reports of hermes-agent #58017 and
ragflow #17292.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import FinishMeaning, finish_meaning
from unbroken.core.payload import filled, json_value, mapping
from unbroken.errors import MalformedEvent

_MESSAGES = (
    *("message", "msg", "error_msg", "error_message", "errorMessage", "err_msg", "errmsg", "error_description"),
    *("status_msg", "detail", "Message", "title"),
)
"""The fields that hold a message for a person, the best first."""

_CODES = ("code", "error_code", "errorCode", "err_code", "errcode", "status_code", "statusCode", "ret_code")
"""The fields that hold a code."""

ERROR_KEYS = (
    rb"errors|(?:error|err|status|ret)_(?:code|msg|message)|err(?:or)?(?:code|msg|Code|Message)|base_resp|success|msg"
)
"""Matches the fields of an error, beside ``error``, ``detail`` and ``code``: part of a ``notable`` pattern."""

_SUCCESSES = frozenset({"", "0", "200", "ok", "success", "none", "null"})
"""Codes, in lower case, that report no error."""

_BESIDE_MESSAGE = frozenset(
    {*_MESSAGES, "id", "request_id", "requestId", "RequestId", "trace_id", "timestamp", "path", "status", "type"}
)
"""The fields of a document that is only a message: an error of a gateway."""


def parsed(data: bytes, event_type: str = "message") -> Any:
    """Return the JSON of an event's data; an ``error`` event may also carry a bare message, as JSON or as text.

    Raises:
        MalformedEvent: the data is not JSON.
    """
    try:
        answer = json_value(data)
    except ValueError:
        if event_type != "error":
            raise MalformedEvent("an event's data is not JSON") from None
        answer = data.decode("utf-8", "replace")
    return answer if event_type != "error" or isinstance(answer, dict) else {"message": words(answer)}


def error_of(answer: Mapping[str, Any], event_type: str = "message", content: str = "choices") -> dict[str, Any] | None:
    """Return the error that a document reports, ``None`` if it reports none.

    Args:
        answer: the document.
        event_type: the type of its event; an ``error`` event is an error whatever it holds.
        content: the field in which a document of this dialect carries the answer. Beside an answer only a field that
            is named for errors counts.

    Returns:
        the fields of the error, among them ``message`` and, if the document has one, ``code``.
    """
    for name in ("error", "errors"):
        if filled(answer.get(name)):
            return _nested(answer, answer[name])
    base = mapping(answer.get("base_resp"))
    if _fails(base):
        return flat(base)
    if event_type == "error" or answer.get("object") == "error" or answer.get("success") is False:
        return flat(answer)
    if filled(answer.get(content)) or not words(answer):
        return None
    is_named = (
        answer.get("type") == "error" or answer.get("status") in ("error", "fail", "failed") or "detail" in answer
    )
    return flat(answer) if is_named or _fails(answer) or answer.keys() <= _BESIDE_MESSAGE else None


def error_of_choice(choice: Mapping[str, Any], finish_reasons: Mapping[str, FinishMeaning]) -> dict[str, Any] | None:
    """Return an error inside a choice (OpenRouter), or for a finish reason that means one."""
    if filled(choice.get("error")):
        return _nested({}, choice["error"])
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and finish_meaning(finish_reasons, reason) is FinishMeaning.FAILED:
        return failing_reason(reason)
    return None


def failing_reason(reason: str) -> dict[str, Any]:
    """Return the error that a failing finish reason means: the provider's own failure, which may pass."""
    return {"message": f"the provider ended the answer with {reason}", "type": reason, "code": 500}


def words(value: object) -> str:
    """Return the message in a value of any shape, ``""`` without one."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping):
        return next((found for name in _MESSAGES if (found := words(value.get(name)))), "")
    if isinstance(value, list):
        return "; ".join(filter(None, map(words, value)))
    return ""


def code_of(answer: Mapping[str, Any]) -> str | int:
    """Return the first code of a document, ``""`` without one."""
    found = (answer.get(name) for name in _CODES)
    return next((code for code in found if isinstance(code, str | int) and not isinstance(code, bool)), "")


def _fails(answer: Mapping[str, Any]) -> bool:
    code = code_of(answer)
    return str(code).strip().lower() not in _SUCCESSES if not isinstance(code, int) or abs(code) < 10**9 else True


def _nested(answer: Mapping[str, Any], error: object) -> dict[str, Any]:
    """Return an error that has a field of its own: an object, a list of objects, or text beside other fields."""
    if isinstance(error, list):
        error = next((item for item in error if isinstance(item, Mapping)), words(error))
    code = {"code": code_of(answer)} if code_of(answer) != "" else {}
    if isinstance(error, Mapping):
        inner = mapping(error.get("error"))
        said = words(error) or words(inner) or words(answer)
        return {**code, **inner, **flat(error), "message": said}
    said = words(answer)
    if isinstance(error, str) and (not said or " " in error.strip()):
        return {**code, "message": f"{error.strip()}: {said}" if said else error.strip()}
    return {**code, "message": said, "type": error if isinstance(error, str) else ""}


def flat(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error of a document that is known to be one, from the document's own fields."""
    fields = {name: value for name, value in answer.items() if name != "type" or value != "error"}
    return {**fields, "message": words(answer), "code": code_of(answer)}
