"""An answer, put together from its typed events: the one place where pieces become texts and tool calls."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from unbroken.core.dialect import Dialect, EventDecoder, FinishMeaning
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

    Args:
        dialect: of the turn.
        decoder: the decoder whose events are collected.

    Attributes:
        usage: what the provider counted; all of its fields are ``None`` until it says.
        tool_calls: complete tool calls only: the turn settled and their arguments parse.
    """

    def __init__(self, dialect: Dialect, decoder: EventDecoder) -> None:
        self._finish_reasons = dialect.finish_reasons
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
    def finish_meaning(self) -> FinishMeaning | None:
        """What the finish reason means; ``None`` while there is none, and for one that the dialect does not know."""
        return self._finish_reasons.get(self.finish_reason or "")

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
        return self._decoder.messages(self)

    @property
    def is_empty(self) -> bool:
        """Whether the model has said nothing yet."""
        return not self._texts and not self._calls

    def has_finished(self, choices: int = 1) -> bool:
        """Whether so many choices have a finish reason."""
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

    def parsed_tool_calls(self) -> list[ToolCall]:
        """Every tool call whose arguments parse. They are complete once the turn has settled, not before."""
        return [call for key in self._calls if (call := self._parsed(self._partial(key)))]

    def _parsed(self, piece: PartialToolCall) -> ToolCall | None:
        # No arguments at all mean that there are none, unless the answer was broken off before them.
        meaning = self._finish_reasons.get(self._finishes.get(piece.choice, ""))
        arguments = piece.arguments or ("" if meaning and meaning.is_truncating else "{}")
        try:
            parsed = msgspec.json.decode(arguments)
        except msgspec.DecodeError:
            return None
        return ToolCall(piece.index, piece.id, piece.name, arguments, parsed, piece.choice)

    def _partial(self, key: tuple[int, int]) -> PartialToolCall:
        call = self._calls[key]
        return PartialToolCall(call.index, call.id, call.name, "".join(self._arguments[key]), call.choice)

    def _joined(self, kind: type, choice: int = 0) -> str:
        return "".join(self._texts.get((kind, choice), ()))
