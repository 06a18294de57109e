"""What a turn has said so far, collected from its typed events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec

from unbroken.core.dialect import EventDecoder
from unbroken.core.events import (
    Finish,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    TypedEvent,
    Usage,
    UsageReport,
)

TRUNCATING = frozenset(
    {
        "length",
        "content_filter",
        "max_tokens",
        "MAX_TOKENS",
        "SAFETY",
        "max_output_tokens",
        "max_messages",
        "incomplete",
    }
)
"""Finish reasons of an answer that was broken off, perhaps in the middle of a tool call."""


@dataclasses.dataclass
class PartialToolCall:
    """A tool call as far as it came. Its arguments may be half of what the model meant: do not run it."""

    index: int
    id: str
    name: str
    arguments: str = ""
    choice: int = 0


class Answer:
    """The answer as far as it has come. All texts are those of the first choice.

    Attributes:
        usage: what the provider counted; all of its fields are ``None`` until it says.
        tool_calls: complete tool calls only: the turn settled and their arguments parse.
    """

    def __init__(self, decoder: EventDecoder) -> None:
        self._decoder = decoder
        self.usage = Usage()
        self.tool_calls: list[ToolCall] = []
        self._texts: dict[tuple[type, int], list[str]] = {}
        self._finishes: dict[int, str] = {}
        self._calls: dict[tuple[int, int], ToolCallStart] = {}
        self._arguments: dict[tuple[int, int], list[str]] = {}

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self._joined(Text)

    @property
    def reasoning(self) -> str:
        """The model's reasoning, as far as the provider shows it."""
        return self._joined(Reasoning)

    @property
    def refusal(self) -> str:
        """The refusal, where the dialect tells it apart."""
        return self._joined(Refusal)

    @property
    def finish_reason(self) -> str | None:
        """How the answer ended, in the provider's word; ``None`` while it has not."""
        return self._finishes.get(0)

    @property
    def partial_tool_calls(self) -> list[PartialToolCall]:
        """Tool calls that are not complete: still coming, cut, or with arguments that do not parse."""
        complete = {(call.choice, call.index) for call in self.tool_calls}
        return [self._partial(key) for key in self._calls if key not in complete]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The answer in the dialect's own form, to be appended to the conversation so that it can go on.

        Signatures of reasoning, ids and what else the provider wants back are in it.
        """
        return self._decoder.messages()

    @property
    def is_empty(self) -> bool:
        """Whether the model has said nothing yet."""
        return not self._texts and not self._calls

    def has_finished(self, choices: int = 1) -> bool:
        """Whether so many choices have told how they ended."""
        return len(self._finishes) >= choices

    def text_of(self, choice: int) -> str:
        """The text of another choice, where several were asked for (``n``)."""
        return self._joined(Text, choice)

    def add(self, event: TypedEvent) -> None:
        """Collect one event."""
        match event:
            case Text(text, choice) | Reasoning(text, choice) | Refusal(text, choice):
                self._texts.setdefault((type(event), choice), []).append(text)
            case ToolCallStart(index, choice=choice):
                self._calls[choice, index] = event
                self._arguments[choice, index] = []
            case ToolCallArguments(index, arguments, choice):
                self._arguments[choice, index].append(arguments)
            case ToolCall():
                self.tool_calls.append(event)
            case UsageReport(usage):
                self.usage = usage
            case Finish(reason, choice):
                self._finishes[choice] = reason

    def complete_tool_calls(self) -> Iterator[ToolCall]:
        """The tool calls that are whole. Ask only once the turn has settled: before that none can be."""
        for piece in self.partial_tool_calls:
            # No arguments at all mean that there are none, unless the answer was broken off before them.
            broken_off = self._finishes.get(piece.choice) in TRUNCATING
            arguments = piece.arguments or ("" if broken_off else "{}")
            try:
                parsed = msgspec.json.decode(arguments)
            except msgspec.DecodeError:
                continue
            yield ToolCall(piece.index, piece.id, piece.name, arguments, parsed, piece.choice)

    def _partial(self, key: tuple[int, int]) -> PartialToolCall:
        call = self._calls[key]
        return PartialToolCall(call.index, call.id, call.name, "".join(self._arguments[key]), call.choice)

    def _joined(self, kind: type, choice: int = 0) -> str:
        return "".join(self._texts.get((kind, choice), ()))
