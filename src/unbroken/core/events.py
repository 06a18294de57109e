"""The typed events of a turn, the same for every dialect, and what a provider counts.

A dialect's decoder turns one SSE event into any number of these. They are plain data: collecting them into an answer
is the client's business.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider counted, in tokens. ``None`` means that it did not say.

    Attributes:
        input_tokens: tokens of the prompt, cached ones included.
        cached_tokens: tokens of the prompt that came from the provider's cache.
        output_tokens: tokens produced, reasoning included.
        reasoning_tokens: tokens of the output that were reasoning.
    """

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def new(self) -> int | None:
        """Tokens of the prompt that were not cached."""
        return None if self.input_tokens is None else max(0, self.input_tokens - (self.cached_tokens or 0))

    @property
    def total(self) -> int | None:
        """Input and output together."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A piece of the answer."""

    text: str
    choice: int = 0


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """A piece of the model's reasoning, plain or summarised."""

    text: str
    choice: int = 0


class Signature(msgspec.Struct, frozen=True, tag="signature"):
    """An opaque token by which the provider recognises its own reasoning and which it wants back."""

    signature: str
    choice: int = 0


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """A piece of a refusal, where the dialect tells it apart from text."""

    text: str
    choice: int = 0


class ToolCallStart(msgspec.Struct, frozen=True, tag="tool_call_start"):
    """The model begins a tool call; ``index`` tells calls of one answer apart."""

    index: int
    id: str
    name: str
    choice: int = 0


class ToolCallArguments(msgspec.Struct, frozen=True, tag="tool_call_arguments"):
    """A piece of a tool call's arguments; not yet fit to be parsed."""

    index: int
    arguments: str
    choice: int = 0


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """A complete tool call: the turn settled and ``arguments`` parse as JSON.

    Attributes:
        arguments: the JSON text as the model wrote it.
        parsed: the same, parsed.
    """

    index: int
    id: str
    name: str
    arguments: str
    parsed: Any
    choice: int = 0


class UsageReport(msgspec.Struct, frozen=True, tag="usage"):
    """The provider's count; a later one replaces an earlier one."""

    usage: Usage


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """How a choice ended, in the provider's word (``stop``, ``length``, ``tool_calls``, ``content_filter``, ...)."""

    reason: str
    choice: int = 0


class Failed(msgspec.Struct, frozen=True, tag="error"):
    """The provider reported an error inside the stream.

    Attributes:
        message: the provider's words.
        kind: its ``type`` or ``code``.
        transient: whether the same request may succeed later.
    """

    message: str
    kind: str = ""
    transient: bool = False


TypedEvent: TypeAlias = (
    Text
    | Reasoning
    | Signature
    | Refusal
    | ToolCallStart
    | ToolCallArguments
    | ToolCall
    | UsageReport
    | Finish
    | Failed
)
