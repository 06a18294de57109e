"""An answer, assembled from its typed events: pieces are joined to texts and tool calls."""

from __future__ import annotations

from typing import Any

import msgspec

from unbroken.core.dialect import Dialect, EventDecoder, FinishMeaning, finish_meaning
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
from unbroken.core.payload import json_value


class PartialToolCall(msgspec.Struct):
    """A tool call that is not complete. Its arguments may be truncated: do not run it."""

    index: int
    id: str
    name: str
    arguments: str = ""
    choice: int = 0


class Answer:
    """The answer received so far. All texts are those of the first choice.

    Args:
        dialect: the dialect of the turn.
        decoder: the decoder whose events are collected.

    Attributes:
        usage: the provider's token counts; all fields are ``None`` until it reports them.
        tool_calls: complete tool calls only: the answer has ended, for a reason that completes calls, and their
            arguments parse.
        is_whole_without_reason: whether the end was proven although the provider gave no finish reason
            (:attr:`unbroken.Policy.accept_done`).
    """

    def __init__(self, dialect: Dialect, decoder: EventDecoder) -> None:
        self._finish_reasons = dialect.finish_reasons
        self._decoder = decoder
        self.usage = Usage()
        self.tool_calls: list[ToolCall] = []
        self.is_whole_without_reason = False
        self._texts: dict[tuple[type, int], list[str]] = {}
        self._finishes: dict[int, str] = {}
        self._finished: set[int] = set()
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
        """The refusal, if the dialect distinguishes it from text."""
        return self._joined(Refusal)

    @property
    def finish_reason(self) -> str | None:
        """The provider's finish reason; ``None`` until the answer has ended."""
        return self._finishes.get(0)

    @property
    def finish_meaning(self) -> FinishMeaning | None:
        """The meaning of the finish reason; ``None`` until there is one, or if the dialect does not know it."""
        return finish_meaning(self._finish_reasons, self.finish_reason or "")

    @property
    def partial_tool_calls(self) -> list[PartialToolCall]:
        """Tool calls that are not complete: still arriving, cut, or with arguments that do not parse."""
        complete = {(call.choice, call.index) for call in self.tool_calls}
        return [self._partial(key) for key in self._calls if key not in complete]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The answer as messages of the dialect, to append to the conversation and continue it.

        Contains signatures of reasoning, ids and everything else that the provider expects back.
        """
        return self._decoder.messages(self)

    @property
    def is_empty(self) -> bool:
        """Whether the model has produced nothing yet."""
        return not self._texts and not self._calls

    def has_finished(self, choices: int = 1) -> bool:
        """Return whether at least this many choices have a finish reason, with no output of theirs behind it."""
        return len(self._finished) >= choices

    def text_of(self, choice: int) -> str:
        """Return the text of one choice, if several were requested (``n``)."""
        return self._joined(Text, choice)

    def add(self, event: TypedEvent) -> None:
        """Collect one event."""
        if type(event) is Text and (pieces := self._texts.get((Text, event.choice))):  # nearly always
            pieces.append(event.text)
            if self._finished:
                self._finished.discard(event.choice)
            return
        match event:
            case Text(text, choice) | Reasoning(text, choice) | Refusal(text, choice):
                self._texts.setdefault((type(event), choice), []).append(text)
                self._finished.discard(choice)
            case ToolCallStart(index, choice=choice):
                self._calls[choice, index] = event
                self._arguments.setdefault((choice, index), [])
                self._finished.discard(choice)
            case ToolCallArguments(index, arguments, choice, replaces):
                if replaces:
                    self._arguments[choice, index].clear()
                self._arguments[choice, index].append(arguments)
                self._finished.discard(choice)
            case ToolCall():
                self.tool_calls.append(event)
            case UsageReport(usage):
                self.usage = usage
            case Finish(reason, choice):
                self._finishes[choice] = reason
                self._finished.add(choice)

    def parsed_tool_calls(self) -> list[ToolCall]:
        """Return the tool calls of choices that ended for a reason that completes calls, if their arguments parse."""
        partial = map(self._partial, self._calls)
        return [call for piece in partial if self.completes_calls(piece.choice) and (call := _parsed(piece))]

    def completes_calls(self, choice: int = 0) -> bool:
        """Return whether a choice has ended for a reason that completes tool calls."""
        reason = self._finishes.get(choice)
        if reason is None:
            return self.is_whole_without_reason
        return finish_meaning(self._finish_reasons, reason) is FinishMeaning.WHOLE

    def _partial(self, key: tuple[int, int]) -> PartialToolCall:
        call = self._calls[key]
        return PartialToolCall(call.index, call.id, call.name, "".join(self._arguments[key]), call.choice)

    def _joined(self, kind: type, choice: int = 0) -> str:
        return "".join(self._texts.get((kind, choice), ()))


def _parsed(piece: PartialToolCall) -> ToolCall | None:
    """Return a complete call, ``None`` without a name or if its arguments do not parse. No arguments mean none."""
    arguments = piece.arguments or "{}"
    try:
        parsed = json_value(arguments.encode())
    except ValueError:
        return None
    return ToolCall(piece.index, piece.id, piece.name, arguments, parsed, piece.choice) if piece.name else None
