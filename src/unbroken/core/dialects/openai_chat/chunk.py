"""A chunk of a chat completion, or a whole one: decoded by its types, or leniently where a field has another type.

The typed decode is the fast path. A chunk that it refuses is read field by field: a field that cannot be read is
ignored, and the rest of the chunk counts. Fields of a delta that are not known here are kept in ``extra``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.core.dialects.common.usage import usage_of
from unbroken.core.events import Usage
from unbroken.core.payload import UNREADABLE, count, dicts, mapping, text, whole


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a tool call's piece."""

    name: str | None = None
    arguments: Any = None


class ToolCallPiece(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="(extra)")  # no server can send this name


class Delta(msgspec.Struct, forbid_unknown_fields=True):
    """The addition of one chunk to a choice, or the whole message of a non-streaming answer."""

    role: str | None = None
    content: Any = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: Function | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="(extra)")  # no server can send this name


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
        hits = self.prompt_cache_hit_tokens
        return usage_of(
            prompt=self.prompt_tokens,
            completion=self.completion_tokens,
            total=self.total_tokens,
            cached=self.prompt_tokens_details.cached_tokens if hits is None and self.prompt_tokens_details else hits,
            reasoning=self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None,
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


_decode = msgspec.json.Decoder(Chunk, strict=False).decode


def typed_chunk(data: bytes) -> Chunk | None:
    """Decode a chunk by its types; ``None`` if a field has another type, or a delta has a field that is not known."""
    try:
        return _decode(data)
    except UNREADABLE:
        return None


def lenient_chunk(raw: Mapping[str, Any]) -> Chunk:
    """Read a chunk field by field; fields of another type are ignored."""
    groq = mapping(raw.get("x_groq")).get("usage")
    return Chunk(
        object=text(raw.get("object")),
        choices=[_choice(choice) for choice in dicts(raw.get("choices"))],
        usage=_usage(raw.get("usage")) or _usage(groq),
        error=raw.get("error"),
    )


def _choice(raw: Mapping[str, Any]) -> Choice:
    return Choice(
        index=whole(raw.get("index")),
        delta=_delta(raw.get("delta")),
        message=_delta(raw.get("message")),
        finish_reason=text(raw.get("finish_reason")),
        error=raw.get("error"),
    )


def _delta(raw: object) -> Delta | None:
    if not isinstance(raw, dict):
        return None
    calls = raw.get("tool_calls")
    return Delta(
        content=raw.get("content"),
        reasoning_content=text(raw.get("reasoning_content")),
        reasoning=raw.get("reasoning"),
        refusal=text(raw.get("refusal")),
        tool_calls=[_piece(piece) for piece in dicts([calls] if isinstance(calls, dict) and calls else calls)],
        function_call=_function(raw.get("function_call")),
        extra=_extra(raw, Delta),
    )


def _piece(raw: Mapping[str, Any]) -> ToolCallPiece:
    return ToolCallPiece(
        index=whole(raw.get("index")),
        id=_identifier(raw.get("id")),
        type=text(raw.get("type")),
        function=_function(raw.get("function")),
        extra=_extra(raw, ToolCallPiece),
    )


def _function(raw: object) -> Function | None:
    return Function(text(raw.get("name")), raw.get("arguments")) if isinstance(raw, dict) and raw else None


def _identifier(value: object) -> str:
    """Return an id as text: some servers number their calls."""
    return str(value) if count(value) is not None else text(value)


def _extra(raw: Mapping[str, Any], known: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in known.__struct_encode_fields__}


def _usage(raw: object) -> UsageFields | None:
    """Read token counts; a count that is no whole number is ignored."""
    if not isinstance(raw, dict) or not raw:
        return None
    cached = whole(mapping(raw.get("prompt_tokens_details")).get("cached_tokens"))
    reasoning = whole(mapping(raw.get("completion_tokens_details")).get("reasoning_tokens"))
    return UsageFields(
        prompt_tokens=whole(raw.get("prompt_tokens")),
        completion_tokens=whole(raw.get("completion_tokens")),
        total_tokens=whole(raw.get("total_tokens")),
        prompt_tokens_details=PromptDetails(cached),
        completion_tokens_details=CompletionDetails(reasoning),
        prompt_cache_hit_tokens=whole(raw.get("prompt_cache_hit_tokens")),
    )
