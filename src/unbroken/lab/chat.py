"""The OpenAI chat-completions dialect, from the server's side: requests in, drafts of responses out."""

from __future__ import annotations

import json
from typing import Any

from unbroken.lab.answer import Answer
from unbroken.lab.fault import Point
from unbroken.lab.record import RecordedRequest
from unbroken.lab.script import Body, Draft, End, Head, Mark, Silence, Step, error_object, silence, whole

_CREATED = 1_700_000_000  # fixed, so that the same request gives the same bytes
_COMMENT = b": keep-alive\n\n"
_DEFAULT_REASONING = ("Let me think.",)


def draft_response(request: RecordedRequest, answer: Answer, at: Point | None) -> Draft:
    """The response to `request` in which nothing goes wrong.

    `at` is the point at which something will: where the answer as such would not pass it (no comments, no reasoning),
    it gets what it takes to.
    """
    path = request.target.partition("?")[0]
    if request.method == "GET" and path.endswith("/models"):
        return whole(200, _models(answer))
    if request.method != "POST" or not path.endswith("/chat/completions"):
        message = f"Unknown request URL: {request.method} {path}."
        return whole(404, _invalid(message, "unknown_url"))
    try:
        call = json.loads(request.body)
    except ValueError:
        return whole(400, _invalid("The body of the request is not JSON.", None))
    if isinstance(call, dict) and call.get("stream") is True:
        return _stream(answer, request.number, at)
    return whole(
        200,
        _completion(answer, request.number),
        headers=_trace(request.number),
        think={answer.think_at: answer.think},
        framing=answer.framing,
    )


def _invalid(message: str, code: str | None) -> bytes:
    return error_object({"message": message, "type": "invalid_request_error", "code": code})


def _models(answer: Answer) -> bytes:
    model = {"id": answer.model, "object": "model", "created": _CREATED, "owned_by": "unbroken"}
    return json.dumps({"object": "list", "data": [model]}).encode()


def _trace(number: int) -> dict[str, str]:
    return {"x-request-id": f"req_lab_{number}"}


def _completion(answer: Answer, number: int) -> bytes:
    """The whole answer as one ``chat.completion`` object."""
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


def _stream(answer: Answer, number: int, at: Point | None) -> Draft:
    """The answer as server-sent events, with every point marked."""
    headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **_trace(number)}
    think = {answer.think_at: answer.think}
    comments = max(answer.comments, 2) if at == "after_comments" else answer.comments
    reasoning = tuple(answer.reasoning) or (_DEFAULT_REASONING if at == "after_reasoning" else ())
    reasoned = [_delta(answer, number, {"reasoning_content": token}) for token in reasoning]
    told = [_delta(answer, number, {"content": token}) for token in answer.tokens]
    told += [_delta(answer, number, {"tool_calls": [fragment]}) for fragment in _tool_call_fragments(answer)]
    return [
        Mark("before_headers"),
        *silence(think.get("before_headers")),
        Head(200, tuple(headers.items()), answer.framing),
        Mark("after_headers"),
        *_commented(think.get("after_headers", 0.0), comments),
        Mark("after_comments"),
        Body(_delta(answer, number, {"role": "assistant", "content": ""})),
        Mark("after_role"),
        *silence(think.get("after_role")),
        *_paced(reasoned, "after_reasoning", answer.gap),
        *(silence(answer.gap) if reasoned and told else ()),
        *_paced(told, "after_token", answer.gap),
        Body(_delta(answer, number, {}, answer.finish_reason)),
        Mark("after_finish"),
        *([Body(_usage(answer, number))] if answer.usage is not None else ()),
        Mark("after_usage"),
        *([Body(b"data: [DONE]\n\n")] if answer.done else ()),
        Mark("after_done"),
        End(),
    ]


def _commented(seconds: float, comments: int) -> list[Silence | Body]:
    """A silence with comments spread evenly over it, the last at its end."""
    if not comments:
        return [*silence(seconds)]
    return [*silence(seconds / comments), Body(_COMMENT)] * comments


def _paced(events: list[bytes], point: Point, gap: float) -> list[Step | Mark]:
    """The events with gaps between them and the mark behind the first."""
    steps: list[Step | Mark] = [Body(event) for event in events[:1]]
    steps.append(Mark(point))
    for event in events[1:]:
        steps += [*silence(gap), Body(event)]
    return steps


def _tool_call_fragments(answer: Answer) -> list[dict[str, Any]]:
    """The tool calls as they are streamed: id and name first, then the arguments piece by piece."""
    fragments: list[dict[str, Any]] = []
    for index, (call_id, name, arguments) in enumerate(answer.tool_calls):
        start = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        fragments.append(start)
        fragments += [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return fragments


def _delta(answer: Answer, number: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event({**_envelope(answer, number, "chat.completion.chunk"), "choices": [choice]})


def _usage(answer: Answer, number: int) -> bytes:
    return _event(
        {**_envelope(answer, number, "chat.completion.chunk"), "choices": [], "usage": dict(answer.usage or {})}
    )


def _envelope(answer: Answer, number: int, kind: str) -> dict[str, Any]:
    # The id tells the answers apart: a client that mixes two attempts shows two ids.
    return {"id": f"chatcmpl-lab-{number}", "object": kind, "created": _CREATED, "model": answer.model}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
