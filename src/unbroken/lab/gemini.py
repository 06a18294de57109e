"""Gemini's generateContent, from the server's side.

Source: Gemini API reference, "GenerateContentResponse"; ``google.rpc.Status``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.dialect import Pieces
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import MESSAGE, sse

_PATH = re.compile(r"/models/[^/]+:(?:streamG|g)enerateContent\Z")
_FINISH_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}


class Gemini:
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`.

    The prelude is a response without candidates. It has no heartbeats (Google's SDK breaks on comments), and nothing
    comes after the finish reason. Without ``alt=sse`` the answer comes as one object, never as an array.
    """

    malformed = b'data: {"candidates": broken\n\n'
    heartbeat = b""
    trace_header = "x-request-id"

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.refusal`."""
        return json.dumps({"error": _error(status, members)}).encode()

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """See :meth:`unbroken.lab.speech.Speech.error_event`."""
        return sse({"error": _error(503, members)})

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return bool(_PATH.search(path))

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        path, _, query = request.target.partition("?")
        return path.endswith(":streamGenerateContent") and dict(parse_qsl(query)).get("alt") == "sse"

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        usage = _usage(answer)
        told = [{"text": token} for token in answer.tokens] + _function_calls(answer)
        prelude = {**_envelope(answer, number), "usageMetadata": {**usage, "candidatesTokenCount": 0}}
        finish = _candidate([{"text": ""}], finishReason=_finish_reason(answer))
        return Pieces(
            sse(prelude),
            [_chunk(answer, number, [{"text": token, "thought": True}]) for token in answer.reasoning],
            [_chunk(answer, number, [part]) for part in told],
            sse({"candidates": [finish], **_envelope(answer, number), "usageMetadata": usage}),
        )

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """See :meth:`unbroken.lab.dialect.ServerDialect.whole`."""
        parts: list[dict[str, Any]] = []
        if answer.reasoning:
            parts.append({"text": "".join(answer.reasoning), "thought": True})
        if answer.tokens:
            parts.append({"text": "".join(answer.tokens)})
        candidate = _candidate([*parts, *_function_calls(answer)], finishReason=_finish_reason(answer))
        envelope = _envelope(answer, number)
        return json.dumps({"candidates": [candidate], **envelope, "usageMetadata": _usage(answer)}).encode()


GEMINI = Gemini()


def _chunk(answer: ScriptedAnswer, number: int, parts: list[dict[str, Any]]) -> bytes:
    return sse({"candidates": [_candidate(parts)], **_envelope(answer, number)})


def _candidate(parts: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"content": {"parts": parts, "role": "model"}, **fields, "index": 0}


def _function_calls(answer: ScriptedAnswer) -> list[dict[str, Any]]:
    """Return the calls as parts, each whole: Gemini does not stream arguments."""
    return [
        {"functionCall": {"id": call_id, "name": name, "args": json.loads("".join(fragments) or "{}")}}
        for call_id, name, fragments in answer.tool_calls
    ]


def _envelope(answer: ScriptedAnswer, number: int) -> dict[str, Any]:
    return {"modelVersion": answer.model, "responseId": f"lab-{number}"}


def _finish_reason(answer: ScriptedAnswer) -> str:
    return _FINISH_REASONS.get(answer.finish_reason, answer.finish_reason)


def _usage(answer: ScriptedAnswer) -> dict[str, int]:
    given = answer.usage or {}
    prompt, completion = given.get("prompt_tokens", 0), given.get("completion_tokens", 0)
    return {"promptTokenCount": prompt, "candidatesTokenCount": completion, "totalTokenCount": prompt + completion}


def _error(status: int, members: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": status, "message": MESSAGE, "status": _STATUSES.get(status, "UNAVAILABLE"), **members}
