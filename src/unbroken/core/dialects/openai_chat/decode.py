"""The events of a chat completion as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from unbroken.core.answer import Answer
from unbroken.core.dialects.common.errors import error_of, error_of_choice, failed, parsed
from unbroken.core.dialects.openai_chat.finish_reasons import FINISH_REASONS
from unbroken.core.events import (
    Finish,
    Reasoning,
    Refusal,
    Text,
    ToolCallArguments,
    ToolCallStart,
    TypedEvent,
    Usage,
    UsageReport,
)
from unbroken.core.payload import DONE, UNREADABLE, dicts
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class Function(msgspec.Struct):
    """The function of a tool call's piece."""

    name: str | None = None
    arguments: Any = None


class ToolCallPiece(msgspec.Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    """The addition of one chunk to a choice, or the whole message of a non-streaming answer."""

    content: Any = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: Function | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk or of a whole answer."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    error: Any = None


class PromptDetails(msgspec.Struct):
    """OpenAI's breakdown of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """OpenAI's breakdown of the completion's tokens."""

    reasoning_tokens: int | None = None


class UsageFields(msgspec.Struct):
    """Token counts in OpenAI's fields and in DeepSeek's (``prompt_cache_hit_tokens``)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None

    def normalised(self) -> Usage:
        """Convert the counts to a :class:`Usage`."""
        details = self.prompt_tokens_details
        cached = self.prompt_cache_hit_tokens
        if cached is None and details is not None:
            cached = details.cached_tokens
        output = self.completion_tokens
        if self.total_tokens is not None and self.prompt_tokens is not None:
            output = self.total_tokens - self.prompt_tokens  # xAI and Gemini leave reasoning out of the completion
        completion = self.completion_tokens_details
        reasoning = completion.reasoning_tokens if completion else None
        return Usage(
            input_tokens=self.prompt_tokens,
            cached_tokens=cached,
            output_tokens=output,
            reasoning_tokens=reasoning,
        )


class Groq(msgspec.Struct):
    """Groq's extension: it reports usage here in a stream."""

    usage: UsageFields | None = None


class Chunk(msgspec.Struct):
    """One event of the stream, or a whole answer."""

    object: str | None = None
    choices: list[Choice] | None = None
    usage: UsageFields | None = None
    error: Any = None
    x_groq: Groq | None = None


_decode_chunk = msgspec.json.Decoder(Chunk, strict=False).decode


class ChatDecoder:
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._started: set[tuple[int, int]] = set()
        self._unnumbered: dict[int, list[str]] = {}

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE or event.type == "ping":
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
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.parsed_tool_calls()
            if call.choice == 0
        ]
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if calls:
            message["tool_calls"] = calls
        return [message] if calls or answer.text else []

    def _decode(self, data: bytes, event_type: str) -> Sequence[TypedEvent]:
        try:
            chunk = _decode_chunk(data)
        except UNREADABLE:
            chunk = None
        error: Mapping[str, Any] | None = None
        if chunk is None or chunk.error or chunk.choices is None or chunk.object == "error" or event_type == "error":
            raw = parsed(data, event_type)
            error = error_of(raw, event_type) if isinstance(raw, dict) else None
            chunk = chunk or (Chunk() if error is not None else _chunk(raw))
        return list(self._events(chunk, error))

    def _events(self, chunk: Chunk, error: Mapping[str, Any] | None) -> Iterator[TypedEvent]:
        for choice in chunk.choices or ():
            index = choice.index or 0
            if delta := choice.delta or choice.message:
                yield from self._delta(delta, index)
            if error is None:
                error = error_of_choice({"error": choice.error, "finish_reason": choice.finish_reason}, FINISH_REASONS)
            if choice.finish_reason and error is None:
                yield Finish(choice.finish_reason, index)
        if usage := chunk.usage or (chunk.x_groq and chunk.x_groq.usage):
            yield UsageReport(usage.normalised())
        if error is not None:
            yield failed(error)

    def _delta(self, delta: Delta, choice: int) -> Iterator[TypedEvent]:
        reasoning = delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else "")
        if reasoning:
            yield Reasoning(reasoning, choice)
        yield from _content(delta.content, choice)
        if delta.refusal:
            yield Refusal(delta.refusal, choice)
        for piece in delta.tool_calls or ():
            yield from self._tool_call(piece, choice)
        if delta.function_call:
            yield from self._tool_call(ToolCallPiece(0, "", delta.function_call), choice)

    def _tool_call(self, piece: ToolCallPiece, choice: int) -> Iterator[TypedEvent]:
        index = self._number(piece, choice) if piece.index is None else piece.index
        function = piece.function or Function()
        if (choice, index) not in self._started:
            self._started.add((choice, index))
            yield ToolCallStart(index, piece.id or "", function.name or "", choice)
        arguments = function.arguments
        if arguments is not None and not isinstance(arguments, str):  # Ollama has sent an object here
            arguments = msgspec.json.encode(arguments).decode()
        if arguments:
            yield ToolCallArguments(index, arguments, choice)

    def _number(self, piece: ToolCallPiece, choice: int) -> int:
        """Number a call without an index (Gemini): a new id begins a call, and so does a name without an id."""
        ids = self._unnumbered.setdefault(choice, [])
        if piece.id and piece.id in ids:
            return ids.index(piece.id)
        if piece.id or (piece.function and piece.function.name) or not ids:
            ids.append(piece.id or "")
        return len(ids) - 1


def _chunk(raw: object) -> Chunk:
    try:
        return msgspec.convert(raw, Chunk, strict=False)
    except msgspec.ValidationError as exc:
        raise MalformedEvent(f"not a chat completion chunk: {exc}") from None


def _content(content: object, choice: int) -> Iterator[TypedEvent]:
    """Yield the events of text, or of Mistral's list of typed pieces (``text``, ``thinking``)."""
    if isinstance(content, str):
        if content:
            yield Text(content, choice)
        return
    for piece in dicts(content):
        if isinstance(text := piece.get("text"), str) and text:
            yield Text(text, choice)
        for thought in dicts(piece.get("thinking")):
            if isinstance(text := thought.get("text"), str) and text:
                yield Reasoning(text, choice)
