"""What a turn has said so far, collected from its typed events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec

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

TRUNCATING = frozenset({"length", "content_filter"})
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

    def __init__(self) -> None:
        self.usage = Usage()
        self.tool_calls: list[ToolCall] = []
        self._texts: dict[tuple[type, int], list[str]] = {}
        self._finishes: dict[int, str] = {}
        self._pieces: dict[tuple[int, int], PartialToolCall] = {}

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
        return [piece for key, piece in self._pieces.items() if key not in complete]

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message that can be appended to the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
                if call.choice == 0
            ]
        return message

    @property
    def is_empty(self) -> bool:
        """Whether the model has said nothing yet."""
        return not self._texts and not self._pieces

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
            case ToolCallStart(index, id, name, choice):
                self._pieces[choice, index] = PartialToolCall(index, id, name, choice=choice)
            case ToolCallArguments(index, arguments, choice):
                self._pieces[choice, index].arguments += arguments
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

    def _joined(self, kind: type, choice: int = 0) -> str:
        return "".join(self._texts.get((kind, choice), ()))
