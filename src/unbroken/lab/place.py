"""The place of a fault in the body of a response that a real upstream sends: found as the body comes.

Each finder is given the body piece by piece (events, one by one, in a stream of them) and marks the place in the piece
that has it. A place that was not found by the end of the body is there.
"""

from __future__ import annotations

from typing import Protocol

from unbroken.core.dialect import Call, EventDecoder, EventReader, Signal
from unbroken.core.events import Text
from unbroken.core.sse import Event, parse
from unbroken.errors import MalformedEvent
from unbroken.lab.fault import Fault, Point
from unbroken.lab.script import Mark, SendBody

Parts = list[SendBody | Mark]

MAX_HELD = 1_048_576
"""Bytes of a document that are held to find its middle."""

_ENDINGS = Signal.FINISHES | Signal.SETTLES | Signal.ENDS | Signal.ERROR

_BEHIND: dict[Point, Signal] = {
    "after_token": Signal.ANSWER,
    "after_finish": Signal.FINISHES | Signal.SETTLES,
    "after_usage": Signal.USAGE,
}
"""The first event that means one of these has the point behind it."""

_BEFORE: dict[Point, Signal] = {
    "after_role": Signal.OUTPUT | _ENDINGS,
    "after_reasoning": Signal.ANSWER | _ENDINGS,
    "after_token": _ENDINGS,
    "after_characters": _ENDINGS,
    "after_finish": Signal.USAGE | Signal.ENDS,
    "after_usage": Signal.ENDS,
}
"""The first event that means one of these has the point before it, if it does not have it behind it."""


class Finder(Protocol):
    """A search for the place of one fault."""

    def find(self, piece: bytes) -> Parts | None:
        """Return the piece with the place marked; None if the place is not in it.

        A finder that holds pieces returns parts without a mark for those that it lets go.
        """

    def rest(self) -> Parts:
        """Return what was held, at the end of the body."""


class _Unheld:
    def rest(self) -> Parts:
        """Return nothing: every piece is passed on as it comes."""
        return []


class AfterBytes(_Unheld):
    """The place after so many bytes of the body."""

    def __init__(self, offset: int) -> None:
        self._left = offset

    def find(self, piece: bytes) -> Parts | None:
        """See :meth:`Finder.find`."""
        left, self._left = self._left, self._left - len(piece)
        if left > len(piece):
            return None
        parts = (SendBody(piece[:left]), Mark("after_bytes"), SendBody(piece[left:]))
        return [part for part in parts if isinstance(part, Mark) or part.data]


class AfterEvents(_Unheld):
    """The place after so many events; comments are none."""

    def __init__(self, count: int) -> None:
        self._left = count

    def find(self, piece: bytes) -> Parts | None:
        """See :meth:`Finder.find`."""
        mark = Mark("after_events")
        if self._left <= 0:
            return [mark, SendBody(piece)]
        self._left -= is_event(piece)
        return None if self._left else [SendBody(piece), mark]


class AtEnd(_Unheld):
    """The place behind everything."""

    def find(self, piece: bytes) -> Parts | None:  # noqa: ARG002 - it is in no piece
        """See :meth:`Finder.find`."""
        return None


class InMiddle:
    """The middle of a document, which is held until it is whole."""

    def __init__(self, point: Point) -> None:
        self._mark = Mark(point)
        self._held = bytearray()

    def find(self, piece: bytes) -> Parts | None:
        """Hold the piece; mark the place behind what is held when that is too much."""
        self._held += piece
        if len(self._held) <= MAX_HELD:
            return []
        held, self._held = bytes(self._held), bytearray()
        return [SendBody(held), self._mark]

    def rest(self) -> Parts:
        """Return the document with its middle marked."""
        held = bytes(self._held)
        half = len(held) // 2
        return [SendBody(held[:half]), self._mark, SendBody(held[half:])] if held else []


class ByMeaning(_Unheld):
    """A place that the meaning of the events has, in their dialect.

    Args:
        point: the point.
        offset: that of ``after_characters``.
        call: the call that is answered; None for one of no known dialect, whose events all count as output.
    """

    def __init__(self, point: Point, offset: int, call: Call | None) -> None:
        self._point = point
        self._characters_left = offset
        self._heartbeat = call.dialect.heartbeat if call else b""
        self._reader: EventReader | None = call.dialect.reader(call.generation) if call else None
        self._decoder: EventDecoder | None = call.dialect.decoder() if call else None

    def find(self, piece: bytes) -> Parts | None:
        """See :meth:`Finder.find`."""
        mark = Mark(self._point)
        event = read_event(piece)
        if event is None:
            return None
        meaning = self._meaning(event)
        if self._is_behind(event, meaning):
            return [SendBody(piece), mark]
        return [mark, SendBody(piece)] if self._is_before(event, meaning) else None

    def _is_behind(self, event: Event, meaning: Signal) -> bool:
        if self._point == "after_usage" and meaning & Signal.ENDS:
            return bool(meaning & _BEHIND["after_finish"])  # the last event says all at once
        if self._point == "after_characters":
            self._characters_left -= self._characters(event)
            return self._characters_left <= 0
        if self._point == "after_reasoning":
            return meaning & Signal.OUTPUT == Signal.REASONING
        return bool(meaning & _BEHIND.get(self._point, Signal.SILENT))

    def _is_before(self, event: Event, meaning: Signal) -> bool:
        if self._point == "after_comments":
            return not self._is_heartbeat(event)
        return bool(meaning & _BEFORE.get(self._point, Signal.SILENT))

    def _is_heartbeat(self, event: Event) -> bool:
        heartbeat = read_event(self._heartbeat)
        return event.is_keepalive or (heartbeat is not None and event.data == heartbeat.data)

    def _meaning(self, event: Event) -> Signal:
        if self._reader is None:
            return Signal.ENDS if event.data == b"[DONE]" else Signal.OUTPUT
        try:
            return self._reader.read(event)
        except MalformedEvent:
            return Signal.OUTPUT

    def _characters(self, event: Event) -> int:
        if self._decoder is None:
            return 0
        try:
            return sum(len(typed.text) for typed in self._decoder.decode(event) if isinstance(typed, Text))
        except MalformedEvent:
            return 0


def find_place(fault: Fault, call: Call | None, *, in_events: bool) -> Finder:
    """Return the finder of a fault's place in a body of events, or in one that is a single document."""
    if fault.at == "after_bytes":
        return AfterBytes(fault.offset)
    if fault.at == "after_done":
        return AtEnd()
    if in_events:
        return AfterEvents(fault.offset) if fault.at == "after_events" else ByMeaning(fault.at, fault.offset, call)
    return AtEnd() if fault.at in ("after_finish", "after_usage", "after_events") else InMiddle(fault.at)


def is_event(block: bytes) -> bool:
    """Return whether a block of a stream is a whole event, and not a comment or the beginning of an event."""
    return block.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")) and read_event(block) is not None


def read_event(block: bytes) -> Event | None:
    """Return the event of one block as it came; None for a comment."""
    lines = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return next(iter(parse(lines)), None)
