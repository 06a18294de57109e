"""The events of a chat completion as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import finish_reason
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, error_of_choice, parsed
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.dialects.common.usage import reported
from unbroken.core.dialects.openai_chat.chunk import Chunk, Delta, ToolCallPiece, lenient_chunk, typed_chunk
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.openai_chat.message import AssistantMessage
from unbroken.core.dialects.openai_chat.plain import plain_choice
from unbroken.core.dialects.openai_chat.tool_calls import ToolCallPieces
from unbroken.core.events import Finish, Reasoning, Refusal, Text, TypedEvent
from unbroken.core.payload import dicts, is_done, mapping
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class ChatDecoder(PlainFirstDecoder):
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCallPieces] = {}
        self._message = AssistantMessage()

    def decode_plain(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_plain`."""
        if event.type != "message" or not (plain := plain_choice(event.data)):
            return ()
        if plain.index == 0:
            self._message.add_text(plain.delta.content)
        return [Text(plain.delta.content, plain.index)]

    def decode_full(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_full`."""
        data = event.data.strip()
        if event.is_keepalive or event.type == "ping" or is_done(data):
            return ()
        return self._decode(data, event.type)

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            return self._decode(body, "message")
        except MalformedEvent:
            return ()

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """See :meth:`unbroken.core.dialect.EventDecoder.messages`. Uses the first choice."""
        complete = {call.index: call for call in answer.parsed_tool_calls() if call.choice == 0}
        pieces = self._calls.get(0)
        calls = [(call, complete[call.number]) for call in (pieces.calls if pieces else ()) if call.number in complete]
        return self._message.build(answer, calls)

    def _decode(self, data: bytes, event_type: str) -> Sequence[TypedEvent]:
        chunk = typed_chunk(data)
        error: Mapping[str, Any] | None = None
        if chunk is None or chunk.error or not chunk.choices or chunk.object == "error" or event_type == "error":
            raw = parsed(data, event_type)
            if not isinstance(raw, dict):
                return ()
            error = error_of(raw, event_type)
            chunk = chunk or lenient_chunk(raw)
        return list(self._events(chunk, error))

    def _events(self, chunk: Chunk, error: Mapping[str, Any] | None) -> Iterator[TypedEvent]:
        for choice in chunk.choices or ():
            index = choice.index or 0
            if delta := choice.delta or choice.message:
                yield from self._delta(delta, index)
            if error is None:
                error = error_of_choice({"error": choice.error, "finish_reason": choice.finish_reason}, FINISH_REASONS)
            if error is None and (reason := finish_reason(choice.finish_reason)):
                yield Finish(reason, index)
        if usage := chunk.usage or (chunk.x_groq and chunk.x_groq.usage):
            yield from reported(usage.normalised())
        if error is not None:
            yield failed(error)

    def _delta(self, delta: Delta, choice: int) -> Iterator[TypedEvent]:
        if choice == 0:
            self._message.add(delta)
        reasoning = delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else "")
        if reasoning:
            yield Reasoning(reasoning, choice)
        yield from _content(delta.content, choice)
        if delta.refusal:
            yield Refusal(delta.refusal, choice)
        for piece in delta.tool_calls or ():
            yield from self._tool_call(piece, choice)
        if delta.function_call:
            yield from self._tool_call(ToolCallPiece(0, function=delta.function_call), choice)

    def _tool_call(self, piece: ToolCallPiece, choice: int) -> Iterator[TypedEvent]:
        return self._calls.setdefault(choice, ToolCallPieces(choice)).add(piece)


def _content(content: object, choice: int) -> Iterator[TypedEvent]:
    """Yield the events of text, or of Mistral's list of typed pieces (``text``, ``thinking``)."""
    if isinstance(content, str):
        if content:
            yield Text(content, choice)
        return
    for piece in dicts([content] if isinstance(content, dict) else content):
        if isinstance(text := piece.get("text"), str) and text:
            yield Text(text, choice)
        for thought in dicts(piece.get("thinking")):
            if isinstance(text := mapping(thought).get("text"), str) and text:
                yield Reasoning(text, choice)
