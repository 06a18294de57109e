"""The typed events of a turn, the same for every dialect, and token counts.

A dialect's decoder turns one SSE event into any number of these. They are plain data; the client collects them into an
answer.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's token counts. ``None`` means that it did not report the number.

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
    """An opaque token by which the provider recognises its own reasoning and which must be sent back."""

    signature: str
    choice: int = 0


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """A piece of a refusal, if the dialect distinguishes it from text."""

    text: str
    choice: int = 0


class ToolCallStart(msgspec.Struct, frozen=True, tag="tool_call_start"):
    """The start of a tool call; ``index`` identifies it within the answer.

    A call starts again, with the same index, if the server sends its id or its name late: the later start has both.
    """

    index: int
    id: str
    name: str
    choice: int = 0


class ToolCallArguments(msgspec.Struct, frozen=True, tag="tool_call_arguments"):
    """A piece of a tool call's arguments; it does not parse on its own.

    Attributes:
        replaces: whether these are the arguments so far: the provider has corrected the pieces before.
    """

    index: int
    arguments: str
    choice: int = 0
    replaces: bool = False


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
    """The end of a choice: the provider's finish reason (``stop``, ``length``, ``tool_calls``, ...)."""

    reason: str
    choice: int = 0


class Failed(msgspec.Struct, frozen=True, tag="error"):
    """An error that the provider reported, inside the stream or as a response.

    Attributes:
        message: the provider's message.
        kind: the error's ``type`` or ``code``.
        transient: whether the same request may succeed later.
        retry_after: seconds after which the error itself says that it passes, ``None`` if it does not say.
    """

    message: str
    kind: str = ""
    transient: bool = False
    retry_after: float | None = None


class Restarted(msgspec.Struct, frozen=True, tag="restarted"):
    """The answer was cut and begins again: whatever came before this event is void.

    It comes where the caller chose that (``Policy.after_output="restart"``), from no server.

    Attributes:
        attempt: number of the attempt that begins again.
        character: how many characters of the text came before, and are void.
    """

    attempt: int
    character: int


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
    | Restarted
)
