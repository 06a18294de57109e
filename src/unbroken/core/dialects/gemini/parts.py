"""The parts of a Gemini answer, assembled from those of a stream.

Sources: Gemini API docs, "Thought signatures" (return a signature on the part that carried it; do not merge a part that
has one with a part without) and Vertex AI docs, "Streaming function call arguments" (``partialArgs``,
``willContinue``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from unbroken.core.events import Reasoning, Signature, Text, ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import dicts, filled, mapping, text
from unbroken.errors import MalformedEvent

_VALUES = ("stringValue", "numberValue", "boolValue")
_STEP = re.compile(r"\.([^.\[\]*]+)|\[(\d{1,6})\]|\['([^'\\]*)'\]|\[\"([^\"\\]*)\"\]")


class Parts:
    """The parts of one candidate.

    Args:
        choice: index of the candidate.
    """

    def __init__(self, choice: int = 0) -> None:
        self._choice = choice
        self._kept: list[dict[str, Any] | PlainText] = []
        self._calls = 0
        self._open: StreamedCall | None = None

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The parts to send back: plain text joined, everything else as it came."""
        return [part.whole if isinstance(part, PlainText) else part for part in self._kept]

    def add(self, part: dict[str, Any]) -> Iterator[TypedEvent]:
        """Add a part; yield its typed events.

        Raises:
            MalformedEvent: a piece of a call that has not begun, or of arguments whose path is unusable.
        """
        if "functionCall" in part:
            yield from self._call(part, mapping(part["functionCall"]))
        else:
            yield from self._text(part)
        if signature := text(part.get("thoughtSignature")):
            yield Signature(signature, self._choice)

    def add_text(self, said: str) -> Text:
        """Add a part that is text alone; return its typed event."""
        self._keep_plain(said, thought=False)
        return Text(said, self._choice)

    def _text(self, part: dict[str, Any]) -> Iterator[TypedEvent]:
        said, thought = text(part.get("text")), part.get("thought") is True
        if said:
            yield Reasoning(said, self._choice) if thought else Text(said, self._choice)
        if not part.keys() <= {"text", "thought"}:
            self._keep(part)
        elif said:
            self._keep_plain(said, thought=thought)

    def _keep(self, part: dict[str, Any]) -> None:
        if any(filled(value) for name, value in part.items() if name != "thought"):
            self._kept.append(dict(part))

    def _keep_plain(self, said: str, *, thought: bool) -> None:
        last = self._kept[-1] if self._kept else None
        if not isinstance(last, PlainText) or last.thought is not thought:
            self._kept.append(last := PlainText(thought))
        last.pieces.append(said)

    def _call(self, part: dict[str, Any], call: dict[str, Any]) -> Iterator[TypedEvent]:
        name = text(call.get("name"))
        if self._open is None or name not in ("", self._open.name):
            if not filled(call):
                return
            if not name:
                raise MalformedEvent("a function call goes on that has not begun")
            self._open = StreamedCall(self._calls, part, name)
            self._calls += 1
            yield ToolCallStart(self._open.index, text(call.get("id")), name, self._choice)
        streamed = self._open
        streamed.add(part, call)
        if call.get("willContinue") is not True:
            self._open = None
            self._kept.append(streamed.whole)
            arguments = msgspec.json.encode(streamed.arguments).decode()
            yield ToolCallArguments(streamed.index, arguments, self._choice)


class PlainText:
    """Text or thoughts without a signature; the pieces may be joined.

    Args:
        thought: whether these are thoughts.

    Attributes:
        pieces: the texts in order.
    """

    def __init__(self, thought: bool) -> None:
        self.thought = thought
        self.pieces: list[str] = []

    @property
    def whole(self) -> dict[str, Any]:
        """One part with the joined text."""
        said = {"text": "".join(self.pieces)}
        return {**said, "thought": True} if self.thought else said


class StreamedCall:
    """A function call, which may come in pieces but mostly comes whole.

    Args:
        index: its number among the calls of the candidate.
        part: the part with which it began.
        name: name of the function.
    """

    def __init__(self, index: int, part: dict[str, Any], name: str) -> None:
        self.index = index
        self.name = name
        self.arguments: dict[str, Any] = {}
        self._part = part
        self._unfinished: set[str] = set()

    @property
    def whole(self) -> dict[str, Any]:
        """The part with the whole call."""
        call = mapping(self._part["functionCall"])
        kept = {name: value for name, value in call.items() if name not in ("partialArgs", "willContinue")}
        return {**self._part, "functionCall": {**kept, "args": self.arguments}}

    def add(self, part: dict[str, Any], call: Mapping[str, Any]) -> None:
        """Add the arguments of another part.

        Raises:
            MalformedEvent: the path of a piece is unusable.
        """
        self._part = {**part, **self._part}
        self.arguments |= mapping(call.get("args"))
        for piece in dicts(call.get("partialArgs")):
            path = text(piece.get("jsonPath"))
            value = next((piece[name] for name in _VALUES if name in piece), None)
            _put(self.arguments, _steps(path), value, more=path in self._unfinished)
            if piece.get("willContinue") is True:
                self._unfinished.add(path)
            else:
                self._unfinished.discard(path)


def _steps(path: str) -> list[str | int]:
    """Return the steps of a JSONPath that selects one value (RFC 9535: ``$.foo.bar[0]['data']``)."""
    steps: list[str | int] = []
    at = 1
    while path.startswith("$") and (found := _STEP.match(path, at)):
        steps.append(int(found[2]) if found[2] else found[1] or found[3] or found[4] or "")
        at = found.end()
    if not steps or at != len(path) or isinstance(steps[0], int):
        raise MalformedEvent("a function call's arguments come with a path that cannot be read")
    return steps


def _put(arguments: dict[str, Any], steps: list[str | int], value: object, *, more: bool) -> None:
    place: Any = arguments
    for step, then in itertools.pairwise(steps):
        place = _child(place, step, [] if isinstance(then, int) else {})
    old = _child(place, steps[-1], value)
    if more and isinstance(old, str) and isinstance(value, str):
        place[steps[-1]] = old + value
    else:
        place[steps[-1]] = value


def _child(place: Any, step: str | int, otherwise: object) -> Any:
    """Return the value at a step; insert ``otherwise`` if it is missing."""
    if isinstance(place, dict) and isinstance(step, str):
        return place.setdefault(step, otherwise)
    if isinstance(place, list) and isinstance(step, int) and step <= len(place):
        if step == len(place):
            place.append(otherwise)
        return place[step]
    raise MalformedEvent("a function call's arguments come with a path that fits nowhere")
