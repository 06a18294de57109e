"""The dialect of a request, and the draft of its response."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.anthropic import ANTHROPIC
from unbroken.lab.background import KeptResponses
from unbroken.lab.chat import CHAT
from unbroken.lab.completions import COMPLETIONS
from unbroken.lab.continuing import Continuation
from unbroken.lab.dialect import CREATED, ServerDialect, draft_stream
from unbroken.lab.fault import Fault
from unbroken.lab.gemini import GEMINI
from unbroken.lab.interactions import INTERACTIONS
from unbroken.lab.record import RecordedRequest
from unbroken.lab.responses import RESPONSES
from unbroken.lab.script import Draft, whole
from unbroken.lab.speech import OPENAI, Speech

DIALECTS: tuple[ServerDialect, ...] = (CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI, INTERACTIONS)
"""Every dialect that the upstream speaks, tried in this order."""


def speech_of(request: RecordedRequest) -> Speech:
    """Return the format of errors in a response to `request`."""
    return dialect_of(request) or OPENAI


def draft_response(
    request: RecordedRequest,
    answer: ScriptedAnswer,
    fault: Fault | None,
    continuation: Continuation | None = None,
    kept: KeptResponses | None = None,
) -> Draft:
    """Return the response to `request` in which nothing goes wrong yet; `fault` is what will."""
    if kept and (draft := kept.answer(request)):
        return draft
    path = request.path
    if request.method == "GET" and path.endswith("/models"):
        return whole(200, _models(answer))
    if request.asks_for_websocket:  # whom this tells to ask over HTTP: Codex
        return whole(426, _invalid(OPENAI, 426, "There is no WebSocket here: ask over HTTP."))
    dialect = dialect_of(request)
    if dialect is None:
        return whole(404, _invalid(OPENAI, 404, f"Unknown request URL: {request.method} {path}.", code="unknown_url"))
    try:
        call = json.loads(request.body)
    except ValueError:
        return whole(400, _invalid(dialect, 400, "The body of the request is not JSON."))
    call = call if isinstance(call, dict) else {}
    if continuation:
        if continuation.refuses(call):
            return whole(400, _invalid(dialect, 400, "This model does not support assistant message prefill."))
        answer = continuation.answer(answer, call)
    if kept and kept.begins(dialect, request, call):
        return kept.begin(dialect, call, answer, request.number, fault)
    return _draft_answer(dialect, request, call, answer, fault)


def _draft_answer(
    dialect: ServerDialect,
    request: RecordedRequest,
    call: Mapping[str, Any],
    answer: ScriptedAnswer,
    fault: Fault | None,
) -> Draft:
    if dialect.streams(request, call):
        at, offset = (fault.at, fault.offset) if fault else (None, 0)
        return draft_stream(dialect, answer, request.number, at, offset)
    return whole(
        200,
        dialect.whole(answer, request.number),
        headers={dialect.trace_header: f"req_lab_{request.number}"},
        think={answer.think_at: answer.think},
        framing=answer.framing,
    )


def dialect_of(request: RecordedRequest) -> ServerDialect | None:
    """Return the dialect of a generation call; None for any other request."""
    return next((dialect for dialect in DIALECTS if request.method == "POST" and dialect.answers(request.path)), None)


def _invalid(speech: Speech, status: int, message: str, **members: Any) -> bytes:
    kind = {} if speech in (GEMINI, INTERACTIONS) else {"type": "invalid_request_error"}
    return speech.refusal(status, {"message": message, **kind, **members})


def _models(answer: ScriptedAnswer) -> bytes:
    model = {"id": answer.model, "object": "model", "created": CREATED, "owned_by": "unbroken"}
    return json.dumps({"object": "list", "data": [model]}).encode()
