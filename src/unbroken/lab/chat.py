"""OpenAI's chat completions, from the server's side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.dialect import COMMENT, CREATED, Pieces
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import OpenAISpeech, sse

DONE = b"data: [DONE]\n\n"


class Chat(OpenAISpeech):
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`. The prelude is a delta with a role only."""

    heartbeat = COMMENT
    trace_header = "x-request-id"

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return path.endswith("/chat/completions")

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        return call.get("stream") is True

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        told = [_delta(answer, number, {"content": token}) for token in answer.tokens]
        told += [_delta(answer, number, {"tool_calls": [fragment]}) for fragment in _tool_call_fragments(answer)]
        return Pieces(
            _delta(answer, number, {"role": "assistant", "content": ""}),
            [_delta(answer, number, {"reasoning_content": token}) for token in answer.reasoning],
            told,
            _delta(answer, number, {}, answer.finish_reason),
            b"" if answer.usage is None else _usage(answer, number),
            DONE if answer.done else b"",
        )

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """Return the whole answer as one ``chat.completion`` object."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.tokens)}
        if answer.reasoning:
            message["reasoning_content"] = "".join(answer.reasoning)
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": "".join(fragments)}}
                for call_id, name, fragments in answer.tool_calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        completion = {**_envelope(answer, number, "chat.completion"), "choices": [choice]}
        if answer.usage is not None:
            completion["usage"] = dict(answer.usage)
        return json.dumps(completion).encode()


CHAT = Chat()


def _tool_call_fragments(answer: ScriptedAnswer) -> list[dict[str, Any]]:
    """Return the tool calls as they are streamed: id and name first, then the arguments piece by piece."""
    fragments: list[dict[str, Any]] = []
    for index, (call_id, name, arguments) in enumerate(answer.tool_calls):
        start = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        fragments.append(start)
        fragments += [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return fragments


def _delta(answer: ScriptedAnswer, number: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return sse({**_envelope(answer, number, "chat.completion.chunk"), "choices": [choice]})


def _usage(answer: ScriptedAnswer, number: int) -> bytes:
    return sse({**_envelope(answer, number, "chat.completion.chunk"), "choices": [], "usage": dict(answer.usage or {})})


def _envelope(answer: ScriptedAnswer, number: int, kind: str) -> dict[str, Any]:
    # The id identifies the answer: a client that mixes two attempts shows two ids.
    return {"id": f"chatcmpl-lab-{number}", "object": kind, "created": CREATED, "model": answer.model}
