"""The tool calls of a choice, put together from pieces that servers mark in different ways.

Sources: OpenAI API reference, "The chat completion chunk object" (``index`` says whose a piece is, ``id`` and ``name``
come with the first). Others: Gemini sends no index; Ollama #15457 and dynamo #4723 send 0 for each call; lmdeploy #3412
sends a new id with every piece of one call; vercel/ai #14722 and #16507 have the name or the id come late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from unbroken.core.dialects.openai_chat.chunk import Function, ToolCallPiece
from unbroken.core.dialects.openai_chat.merging import TextPieces, merged
from unbroken.core.events import ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import is_document


class PartialCall:
    """A call as far as it came.

    Attributes:
        number: its number among the calls of its choice, in the order in which they first appeared.
        kind: its ``type``.
        extra: fields of its pieces that are not part of every call, merged.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.kind = "function"
        self.arguments = TextPieces()
        self.extra: dict[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are a whole document."""
        return is_document("".join(self.arguments).encode())


class ToolCallPieces:
    """The calls of one choice.

    Args:
        choice: index of the choice.
    """

    def __init__(self, choice: int) -> None:
        self.calls: list[PartialCall] = []
        self._choice = choice
        self._by_id: dict[str, PartialCall] = {}
        self._by_index: dict[int, PartialCall] = {}

    def add(self, piece: ToolCallPiece) -> Iterator[TypedEvent]:
        """Take a piece; yield its typed events. A call starts again, by its index, when its name or id comes late."""
        function = piece.function or Function()
        call = self._call_of(piece, function.name or "")
        is_new = call is None
        call = call or self._begin()
        was = (call.id, call.name)
        call.id, call.name = call.id or piece.id or "", call.name or function.name or ""
        call.kind = piece.type or call.kind
        call.extra = merged(call.extra, piece.extra)
        if piece.id:
            self._by_id.setdefault(piece.id, call)
        if piece.index is not None:
            self._by_index[piece.index] = call
        if is_new or was != (call.id, call.name):
            yield ToolCallStart(call.number, call.id, call.name, self._choice)
        if arguments := _arguments(function.arguments):
            call.arguments.append(arguments)
            yield ToolCallArguments(call.number, arguments, self._choice)

    def _call_of(self, piece: ToolCallPiece, name: str) -> PartialCall | None:
        """Return the call that a piece belongs to; ``None`` if it begins one.

        A new id with a name begins a call, whatever the index. Otherwise the index says whose a piece is, or else its
        id, or else it belongs to the last call. Servers without ids begin a call with another name, once the arguments
        of the last one are whole.
        """
        known = self._by_id.get(piece.id or "")
        if piece.id and name and known is None:
            found = self._by_index.get(piece.index) if piece.index is not None else self._last
            is_late_id = found and not found.id and found.name in ("", name) and not found.is_complete
            return found if is_late_id else None
        if piece.index is not None:
            found = self._by_index.get(piece.index)
            shared = known is not None and found is not None and known.id != found.id
            found = known if shared else found
        else:
            found = known or self._last
        if found is None or piece.id or not (name and found.name):
            return found
        is_other = name != found.name
        begins = (is_other or found.is_complete) if piece.index is None else (is_other and found.is_complete)
        return None if begins else found

    def _begin(self) -> PartialCall:
        self.calls.append(PartialCall(len(self.calls)))
        return self.calls[-1]

    @property
    def _last(self) -> PartialCall | None:
        return self.calls[-1] if self.calls else None


def _arguments(value: object) -> str:
    """Return a piece of arguments as text; Ollama has sent an object here."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
