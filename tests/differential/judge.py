"""What is right: told from the objects of the plain SDK alone, and compared with what was read with Unbroken.

Where plain reads a whole answer, so do we, and the same objects. Where plain is silent about a cut, we are loud, or
send the request again and read the second answer. In every case what was handed on is the beginning of what came.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

from differential.streams import Case, Found, Read
from unbroken.core.dialects.common.finish_reasons import FAILING
from unbroken.core.payload import dicts, mapping

Values = list[dict[str, Any]]


class Ending(enum.Enum):
    """How an answer ended, as the SDK's objects tell it."""

    WHOLE = "whole"
    CUT = "cut"
    UNTOLD = "untold"
    """The objects do not tell: an error that the SDK does not know, a failing finish reason, events that it skips."""


def complaints(case: Case, found: Found, again: Read) -> Iterator[str]:
    """Yield what is wrong.

    Args:
        case: what was asked and answered.
        found: what was read.
        again: what plain reads of the second answer.
    """
    ending = ending_of(case, found.plain)
    ends_again = ending_of(case, again)
    for way in ("transport", "relay"):
        ours: Read = without_our_error(case, getattr(found, way))
        is_first = ours.objects == found.plain.objects
        is_second = ours.requests > 1 and ours.objects == again.objects and not again.is_loud
        if ours.is_loud:
            if not found.plain.is_loud and ending is Ending.WHOLE:
                yield f"{way}: plain reads it whole, and here it raises {ours.error}"
            if not (
                begins(found.plain, ours)
                or is_more_of(found.plain, ours)
                or (ours.requests > 1 and begins(again, ours))
            ):
                yield f"{way}: other objects than came, and then {ours.error}"
        elif not (is_first or is_second or is_more_of(found.plain, ours)):
            yield f"{way}: other objects than came"
        elif not is_second and not found.plain.is_loud and ending is Ending.CUT:
            yield f"{way}: silent about a cut"
        elif is_second and not is_first and ends_again is Ending.CUT:
            yield f"{way}: silent about a cut of the second answer"


def without_our_error(case: Case, ours: Read) -> Read:
    """What was read before the error that the relay adds to a cut: the SDK of interactions does not raise it."""
    last = mapping(ours.values[-1]) if ours.objects else {}
    is_ours = ours.is_loud and "the answer is not whole" in str(mapping(last.get("error")).get("message"))
    return dataclasses.replace(ours, objects=ours.objects[:-1]) if case.dialect == "interactions" and is_ours else ours


def begins(came: Read, ours: Read) -> bool:
    return came.objects[: len(ours.objects)] == ours.objects


def is_more_of(plain: Read, ours: Read) -> bool:
    """Whether plain lost its last event to an error, because it waits for what follows it, and we did not."""
    return plain.is_loud and ours.objects[:-1] == plain.objects


def ending_of(case: Case, read: Read) -> Ending:
    """How an answer ended; of one that ended with an error it says how far it had come."""
    values = [value for value in read.values if isinstance(value, dict)]
    if any(_may_be_error(value) for value in values):
        return Ending.UNTOLD
    match case.dialect:
        case "openai-chat" | "openai-completions":
            has_done = b"[DONE]" in case.stream.body
            return _choices(case.request, values, has_done)
        case "openai-responses":
            return _response(values)
        case "anthropic-messages":
            return _message(values)
        case "interactions":
            return _interaction(values)
    return _candidates(case.request, values)


_ERROR_FIELDS = frozenset(
    {"error", "errors", "base_resp", "code", "msg", "message", "detail", "success", "error_code", "error_msg", "status"}
)


def _may_be_error(value: Mapping[str, Any]) -> bool:
    named = {name for name in value.keys() & _ERROR_FIELDS if value[name]}
    named -= {"message"} if value.get("type") == "message_start" else set()
    named -= {"status"} if value.get("event_type") == "interaction.status_update" else set()
    return bool(named) or value.get("object") == "error" or value.get("type") in ("error", "response.error")


def _is_failing(reason: str) -> bool:
    return reason.lower() in FAILING


def _reason(value: object) -> str:
    return value if isinstance(value, str) and value.strip().lower() not in ("", "null", "none") else ""


def _filled(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_filled, value.values()))
    return any(map(_filled, value)) if isinstance(value, list) else value not in (None, "", False)


def _choices(request: Mapping[str, Any], values: Values, has_done: bool) -> Ending:
    finished: set[int] = set()
    begun = 0
    reopened = False
    for value in values:
        for choice in dicts(value.get("choices")):
            index = choice.get("index") or 0
            if not isinstance(index, int) or isinstance(index, bool):
                return Ending.UNTOLD
            reason = choice.get("finish_reason")
            if _filled(choice.get("error")) or (isinstance(reason, str) and _is_failing(reason)):
                return Ending.UNTOLD
            delta = choice.get("delta") or choice.get("message") or {}
            begun = max(begun, index + 1)
            spoke = not isinstance(delta, dict) or any(_filled(delta[name]) for name in delta if name != "role")
            if (spoke or _filled(choice.get("text"))) and index in finished:
                reopened = True
            if _reason(reason) or _is_audio_end(delta):
                finished.add(index)
    if not finished:
        return Ending.CUT
    if reopened:
        return Ending.WHOLE if has_done and begun == 1 else Ending.UNTOLD
    wanted = _wanted(request)
    return Ending.WHOLE if len(finished) >= (min(begun, wanted) if has_done else wanted) else Ending.CUT


def _wanted(request: Mapping[str, Any]) -> int:
    """How many choices are asked for: legacy completions take several prompts."""
    prompt = request.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not any(isinstance(item, int) for item in prompt) else 1
    return max(1, request.get("n") or 1) * prompts


def _is_audio_end(delta: object) -> bool:
    audio = delta.get("audio") if isinstance(delta, dict) else None
    return isinstance(audio, dict) and {name for name in audio if audio[name] is not None} == {"expires_at"}


def _response(values: Values) -> Ending:
    for value in values:
        kind = value.get("type")
        if not isinstance(kind, str) or not kind or kind in ("response.failed", "response.cancelled"):
            return Ending.UNTOLD
        if kind in ("response.completed", "response.incomplete", "response.done"):
            status = mapping(value.get("response")).get("status")
            return Ending.WHOLE if status in ("completed", "incomplete") else Ending.UNTOLD
    return Ending.CUT


def _message(values: Values) -> Ending:
    finished = reopened = stopped = False
    for value in values:
        kind = value.get("type")
        if kind not in _EVENTS:
            return Ending.UNTOLD  # another kind of event, or one that only its name tells
        if kind == "content_block_delta" and finished:
            reopened = True
        if kind == "message_delta":
            reason = mapping(value.get("delta")).get("stop_reason")
            if isinstance(reason, str) and _is_failing(reason):
                return Ending.UNTOLD
            finished = finished or bool(_reason(reason))
        stopped = stopped or kind == "message_stop"
    if not finished:
        return Ending.CUT
    return Ending.UNTOLD if reopened and not stopped else Ending.WHOLE


_EVENTS = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
    "message_stop",
)


_STATUSES = ("completed", "requires_action", "incomplete", "budget_exceeded", "requires_continuation")


def _interaction(values: Values) -> Ending:
    finished = False
    for value in values:
        kind = value.get("event_type")
        if kind not in _HAPPENINGS:
            return Ending.UNTOLD  # of the format before May 2026, or one that only its name tells
        if kind == "interaction.completed":
            status = mapping(value.get("interaction")).get("status")
            return Ending.WHOLE if status in _STATUSES else Ending.UNTOLD
        if kind == "interaction.status_update":
            finished = value.get("status") in _STATUSES
        elif kind != "step.stop":
            finished = False
    return Ending.WHOLE if finished else Ending.CUT


_HAPPENINGS = (
    *("interaction.created", "interaction.status_update", "interaction.completed"),
    *("step.start", "step.delta", "step.stop"),
)


def _candidates(request: Mapping[str, Any], values: Values) -> Ending:
    finished: set[int] = set()
    for value in values:
        if _filled(mapping(value.get("prompt_feedback")).get("block_reason")):
            return Ending.WHOLE
        for candidate in dicts(value.get("candidates")):
            reason = candidate.get("finish_reason")
            if isinstance(reason, str) and _is_failing(reason.rpartition(".")[2]):
                return Ending.UNTOLD
            if _reason(reason) and "UNSPECIFIED" not in str(reason):
                finished.add(candidate.get("index") or 0)
    config = mapping(request.get("generationConfig"))
    wanted = max(1, config.get("candidateCount") or 1)
    return Ending.WHOLE if len(finished) >= wanted else Ending.CUT
