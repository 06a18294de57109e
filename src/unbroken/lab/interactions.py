"""Gemini's Interactions API, from the server's side.

Source: Gemini API docs, "Streaming interactions"; Gemini API reference, "Interaction".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.dialect import COMMENT, AnswerBlock, Pieces, in_blocks
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import MESSAGE, sse

_STATUSES = {
    "stop": "completed",
    "tool_calls": "requires_action",
    "length": "incomplete",
    "content_filter": "incomplete",
}
_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    429: "too_many_requests",
    504: "gateway_timeout",
}
_CREATED = "2023-11-14T22:13:20Z"


class Interactions:
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`.

    The prelude is ``interaction.created``, ``interaction.status_update`` and the announcement of an empty step. Usage
    is sent with the status of the end.
    """

    malformed = b'event: step.delta\ndata: {"event_type": broken\n\n'
    heartbeat = COMMENT
    trace_header = "x-request-id"

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.refusal`."""
        return json.dumps({"error": _error(status, members)}).encode()

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.error_event`."""
        return _event("error", error=_error(503, members))

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return path.endswith("/interactions")

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        return call.get("stream") is True

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        begun = {"id": _name(number), "status": "in_progress", "object": "interaction", "model": answer.model}
        start = _event("interaction.created", interaction=begun)
        start += _event("interaction.status_update", interaction_id=_name(number), status="in_progress")
        return in_blocks(
            start,
            _blocks(answer, number),
            _event("interaction.completed", interaction=_ended(answer, number)),
            b"event: done\ndata: [DONE]\n\n" if answer.done else b"",
        )

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """See :meth:`unbroken.lab.dialect.ServerDialect.whole`."""
        return json.dumps({**_ended(answer, number), "steps": _steps(answer, number)}).encode()


INTERACTIONS = Interactions()


def _blocks(answer: ScriptedAnswer, number: int) -> Iterator[AnswerBlock]:
    indexes = itertools.count()
    if answer.reasoning:
        index = next(indexes)
        deltas = [_delta(index, "thought_summary", content=_text(token)) for token in answer.reasoning]
        signature = _delta(index, "thought_signature", signature=_signature(number))
        yield AnswerBlock("reasoning", _start(index, {"type": "thought"}), deltas, signature + _stop(index))
    if answer.tokens:
        index = next(indexes)
        deltas = [_delta(index, "text", text=token) for token in answer.tokens]
        yield AnswerBlock("text", _start(index, {"type": "model_output"}), deltas, _stop(index))
    for call_id, name, fragments in answer.tool_calls:
        index = next(indexes)
        deltas = [_delta(index, "arguments_delta", arguments=piece) for piece in fragments]
        yield AnswerBlock("tool", _start(index, _function_call(call_id, name)), deltas, _stop(index))


def _steps(answer: ScriptedAnswer, number: int) -> list[dict[str, Any]]:
    """Return the finished steps of the answer."""
    steps: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [_text(token) for token in answer.reasoning]
        steps.append({"type": "thought", "signature": _signature(number), "summary": summary})
    if answer.tokens:
        steps.append({"type": "model_output", "content": [_text("".join(answer.tokens))]})
    for call_id, name, fragments in answer.tool_calls:
        steps.append({**_function_call(call_id, name), "arguments": json.loads("".join(fragments) or "{}")})
    return steps


def _event(kind: str, **fields: Any) -> bytes:
    return sse({**fields, "event_type": kind}, kind)


def _start(index: int, step: dict[str, Any]) -> bytes:
    return _event("step.start", index=index, step=step)


def _delta(index: int, kind: str, **fields: Any) -> bytes:
    return _event("step.delta", index=index, delta={**fields, "type": kind})


def _stop(index: int) -> bytes:
    return _event("step.stop", index=index)


def _text(said: str) -> dict[str, Any]:
    return {"text": said, "type": "text"}


def _function_call(call_id: str, name: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function_call", "name": name, "arguments": {}}


def _name(number: int) -> str:
    return f"v1_lab_{number}"


def _signature(number: int) -> str:
    return f"signature-of-lab-{number}"


def _ended(answer: ScriptedAnswer, number: int) -> dict[str, Any]:
    """Return the interaction in its last state, without its steps."""
    reason = "tool_calls" if answer.tool_calls and answer.finish_reason == "stop" else answer.finish_reason
    told = {"id": _name(number), "status": _STATUSES.get(reason, reason), "object": "interaction"}
    usage = {} if answer.usage is None else {"usage": _usage(answer.usage)}
    return {**told, **usage, "created": _CREATED, "updated": _CREATED, "model": answer.model}


def _usage(given: Mapping[str, Any]) -> dict[str, int]:
    prompt, completion = given.get("prompt_tokens", 0), given.get("completion_tokens", 0)
    return {
        "total_tokens": prompt + completion,
        "total_input_tokens": prompt,
        "total_cached_tokens": 0,
        "total_output_tokens": completion,
        "total_tool_use_tokens": 0,
        "total_thought_tokens": 0,
    }


def _error(status: int, members: Mapping[str, Any]) -> dict[str, Any]:
    return {"message": MESSAGE, "code": _CODES.get(status, "service_unavailable"), **members}
