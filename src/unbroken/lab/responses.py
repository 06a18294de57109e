"""OpenAI's Responses, from the server's side.

Source: OpenAI API reference, "Responses: streaming events".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.dialect import COMMENT, CREATED, AnswerBlock, Pieces, in_blocks
from unbroken.lab.record import RecordedRequest
from unbroken.lab.speech import OpenAISpeech, openai_error, sse

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Responses(OpenAISpeech):
    """The dialect; see :class:`unbroken.lab.dialect.ServerDialect`.

    The prelude is ``response.created``, ``response.in_progress`` and the announcement of an empty item. Nothing comes
    after the event that says how the answer ended.
    """

    malformed = b'event: response.output_text.delta\ndata: {"type": broken\n\n'
    heartbeat = COMMENT
    trace_header = "x-request-id"

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """Return an ``error`` event, nested, as the API really sends it (openai-dotnet #881)."""
        return sse({"type": "error", "error": openai_error(members), "sequence_number": 0}, "error")

    def answers(self, path: str) -> bool:
        """See :meth:`unbroken.lab.dialect.ServerDialect.answers`."""
        return path.endswith("/responses")

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See :meth:`unbroken.lab.dialect.ServerDialect.streams`."""
        return call.get("stream") is True

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """See :meth:`unbroken.lab.dialect.ServerDialect.pieces`."""
        telling = _Telling()
        begun = {**_response(answer, number), "status": "in_progress"}
        start = telling.event("response.created", response=begun)
        start += telling.event("response.in_progress", response=begun)
        blocks = list(_blocks(telling, answer, number))
        response = _finished(answer, number)
        return in_blocks(start, blocks, telling.event(f"response.{response['status']}", response=response))

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """See :meth:`unbroken.lab.dialect.ServerDialect.whole`."""
        return json.dumps(_finished(answer, number)).encode()


RESPONSES = Responses()


class _Telling:
    """The events of one stream, numbered in the order in which they are made."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(self._numbers), **fields}, kind)


def _blocks(telling: _Telling, answer: ScriptedAnswer, number: int) -> Iterator[AnswerBlock]:
    for index, item in enumerate(_items(answer, number)):
        match item["type"]:
            case "reasoning":
                yield _reasoning(telling, answer, item, index)
            case "message":
                yield _message(telling, answer, item, index)
            case _:
                fragments = answer.tool_calls[int(item["id"].rpartition("_")[2])][2]
                yield _function_call(telling, fragments, item, index)


def _reasoning(telling: _Telling, answer: ScriptedAnswer, item: dict[str, Any], index: int) -> AnswerBlock:
    place = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    part = item["summary"][0]
    opening = telling.event("response.output_item.added", output_index=index, item={**item, "summary": []})
    first = telling.event("response.reasoning_summary_part.added", **place, part={**part, "text": ""})
    kind = "response.reasoning_summary_text.delta"
    deltas = [telling.event(kind, **place, delta=token) for token in answer.reasoning]
    closing = telling.event("response.reasoning_summary_text.done", **place, text=part["text"])
    closing += telling.event("response.reasoning_summary_part.done", **place, part=part)
    closing += telling.event("response.output_item.done", output_index=index, item=item)
    return AnswerBlock("reasoning", opening, [first + deltas[0], *deltas[1:]], closing)


def _message(telling: _Telling, answer: ScriptedAnswer, item: dict[str, Any], index: int) -> AnswerBlock:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    begun = {**item, "status": "in_progress", "content": []}
    opening = telling.event("response.output_item.added", output_index=index, item=begun)
    opening += telling.event("response.content_part.added", **place, part={**part, "text": ""})
    kind = "response.output_text.delta"
    deltas = [telling.event(kind, **place, delta=token, logprobs=[]) for token in answer.tokens]
    closing = telling.event("response.output_text.done", **place, text=part["text"], logprobs=[])
    closing += telling.event("response.content_part.done", **place, part=part)
    closing += telling.event("response.output_item.done", output_index=index, item=item)
    return AnswerBlock("text", opening, deltas, closing)


def _function_call(telling: _Telling, fragments: Any, item: dict[str, Any], index: int) -> AnswerBlock:
    place = {"item_id": item["id"], "output_index": index}
    begun = {**item, "status": "in_progress", "arguments": ""}
    opening = telling.event("response.output_item.added", output_index=index, item=begun)
    kind = "response.function_call_arguments"
    deltas = [telling.event(f"{kind}.delta", **place, delta=piece) for piece in fragments]
    closing = telling.event(f"{kind}.done", **place, name=item["name"], arguments=item["arguments"])
    closing += telling.event("response.output_item.done", output_index=index, item=item)
    return AnswerBlock("tool", opening, deltas, closing)


def _items(answer: ScriptedAnswer, number: int) -> list[dict[str, Any]]:
    """Return the finished items of the answer."""
    items: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}]
        items.append({"id": f"rs_lab_{number}", "type": "reasoning", "summary": summary})
    if answer.tokens:
        part = {"type": "output_text", "text": "".join(answer.tokens), "annotations": [], "logprobs": []}
        message = {"id": f"msg_lab_{number}", "type": "message", "role": "assistant", "status": "completed"}
        items.append({**message, "content": [part]})
    for index, (call_id, name, fragments) in enumerate(answer.tool_calls):
        call = {"id": f"fc_lab_{number}_{index}", "type": "function_call", "status": "completed", "call_id": call_id}
        items.append({**call, "name": name, "arguments": "".join(fragments)})
    return items


def _response(answer: ScriptedAnswer, number: int) -> dict[str, Any]:
    return {
        "id": f"resp_lab_{number}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _finished(answer: ScriptedAnswer, number: int) -> dict[str, Any]:
    """Return the response in its last state."""
    response = {**_response(answer, number), "output": _items(answer, number), "usage": _usage(answer)}
    if answer.finish_reason in _INCOMPLETE:
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": _INCOMPLETE[answer.finish_reason]}
    return response


def _usage(answer: ScriptedAnswer) -> dict[str, Any] | None:
    if answer.usage is None:
        return None
    completion, prompt = answer.usage.get("completion_tokens", 0), answer.usage.get("prompt_tokens", 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
