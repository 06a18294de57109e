"""The tool calls of a response, whose pieces identify them in several ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from unbroken.core.dialects.openai_responses.errors import Json
from unbroken.core.events import ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import text

ARGUMENTS: Mapping[str, str] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Output items that ask the caller to run a tool, and the field that holds the arguments."""


class ResponseToolCalls:
    """The calls of one answer, each found by any of its names: the call's id, the item's id, the item's index.

    A custom tool takes free text, which is reported as JSON: a string.
    """

    def __init__(self) -> None:
        self._numbers: dict[str | int | None, int] = {}
        self._custom: set[int] = set()
        self._argued: set[int] = set()

    def begin(self, item: Json, index: int | None) -> Iterator[ToolCallStart]:
        """Start a call, if it has not been started."""
        if self._find(item, index) is not None:
            return
        names = [name for name in (text(item.get("call_id")), text(item.get("id"))) if name]
        taken = set(self._numbers.values())
        number = max(taken, default=-1) + 1 if index is None or index in taken else index
        self._numbers |= dict.fromkeys([*names, index], number)
        if item.get("type") == "custom_tool_call":
            self._custom.add(number)
        yield ToolCallStart(number, names[0] if names else "", text(item.get("name")))

    def argue(self, words: str, item_id: str, index: int | None) -> Iterator[TypedEvent]:
        """Yield a piece of a call's arguments. A call that was not started is reported when it is finished."""
        number = self._numbers.get(item_id, self._numbers.get(index))
        if number is None:
            return
        if number in self._custom:
            words = ("" if number in self._argued else '"') + _escaped(words)
        self._argued.add(number)
        yield ToolCallArguments(number, words)

    def finish(self, item: Json, index: int | None) -> Iterator[TypedEvent]:
        """Complete a call: yield what has not been reported yet."""
        yield from self.begin(item, index)
        number = self._numbers[self._name(item, index)]
        arguments = text(item.get(ARGUMENTS[item["type"]]))
        if number in self._custom:
            arguments = '"' if number in self._argued else f'"{_escaped(arguments)}"'
        elif number in self._argued:
            arguments = ""
        self._argued.add(number)
        if arguments:
            yield ToolCallArguments(number, arguments)

    def _find(self, item: Json, index: int | None) -> int | None:
        return self._numbers.get(self._name(item, index))

    def _name(self, item: Json, index: int | None) -> str | int | None:
        """Return the best name of a call: its own id is the only one that no server changes."""
        return text(item.get("call_id")) or text(item.get("id")) or index


def is_call(item: Json) -> bool:
    """Return whether an output item asks the caller to run a tool."""
    return text(item.get("type")) in ARGUMENTS


def _escaped(words: str) -> str:
    return msgspec.json.encode(words).decode()[1:-1]
