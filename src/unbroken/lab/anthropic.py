"""Anthropic's messages, from the server's side.

Source: Anthropic API docs, "Streaming messages", "Extended thinking", "Errors".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.dialect import AnswerBlock, Pieces, in_blocks
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import MESSAGE, sse

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic:
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`.

    The prelude is ``message_start`` and the start of an empty block. Usage is sent with the stop reason.
    """

    malformed = b'event: content_block_delta\ndata: {"type": "content_block_delta", broken\n\n'
    heartbeat = sse({"type": "ping"}, "ping")
    trace_header = "request-id"

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.refusal`."""
        return json.dumps(_error(_KINDS.get(status, "api_error"), members)).encode()

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.error_event`."""
        return sse(_error("api_error", members), "error")

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return path.endswith("/messages")

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        return call.get("stream") is True

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        usage = _usage(answer)
        message = {**_message(answer, number), "usage": {**usage, "output_tokens": 0}}
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        return in_blocks(
            _event("message_start", message=message),
            _blocks(answer, number),
            _event("message_delta", delta=delta, usage=usage),
            _event("message_stop") if answer.done else b"",
        )

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """See :meth:`unbroken.lab.dialect.ServerDialect.whole`."""
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": "".join(answer.reasoning), "signature": _signature(number)})
        if answer.tokens:
            content.append({"type": "text", "text": "".join(answer.tokens)})
        for call_id, name, fragments in answer.tool_calls:
            tool_input = json.loads("".join(fragments) or "{}")
            content.append({"type": "tool_use", "id": call_id, "name": name, "input": tool_input})
        ending = {"content": content, "stop_reason": _stop_reason(answer), "usage": _usage(answer)}
        return json.dumps({**_message(answer, number), **ending}).encode()


ANTHROPIC = Anthropic()


def _blocks(answer: ScriptedAnswer, number: int) -> Iterator[AnswerBlock]:
    index = 0
    if answer.reasoning:
        deltas = [_delta(index, "thinking_delta", thinking=token) for token in answer.reasoning]
        signature = _delta(index, "signature_delta", signature=_signature(number))
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        yield AnswerBlock("reasoning", _start(index, empty), deltas, signature + _stop(index))
        index += 1
    if answer.tokens:
        deltas = [_delta(index, "text_delta", text=token) for token in answer.tokens]
        yield AnswerBlock("text", _start(index, {"type": "text", "text": ""}), deltas, _stop(index))
        index += 1
    for call_id, name, fragments in answer.tool_calls:
        deltas = [_delta(index, "input_json_delta", partial_json=piece) for piece in fragments]
        call = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        yield AnswerBlock("tool", _start(index, call), deltas, _stop(index))
        index += 1


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _event("content_block_start", index=index, content_block=block)


def _delta(index: int, kind: str, **fields: Any) -> bytes:
    return _event("content_block_delta", index=index, delta={"type": kind, **fields})


def _stop(index: int) -> bytes:
    return _event("content_block_stop", index=index)


def _message(answer: ScriptedAnswer, number: int) -> dict[str, Any]:
    return {
        "id": f"msg_lab_{number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _signature(number: int) -> str:
    return f"signature-of-lab-{number}"


def _stop_reason(answer: ScriptedAnswer) -> str:
    return _STOP_REASONS.get(answer.finish_reason, answer.finish_reason)


def _usage(answer: ScriptedAnswer) -> dict[str, int]:
    """Return the usage, which is always sent: without it Anthropic's SDK fails."""
    given = answer.usage or {}
    return {"input_tokens": given.get("prompt_tokens", 0), "output_tokens": given.get("completion_tokens", 0)}


def _error(kind: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": MESSAGE, **members}}
