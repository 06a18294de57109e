"""Handing on of whole events only, so that the events of another response can follow."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from unbroken.core.sse import Event, Parser
from unbroken.errors import DecodeError

_BLANK_LINES = (b"\n\n", b"\r\r", b"\n\r\n")
"""The ends of an event (WHATWG HTML, "Interpreting an event stream")."""

_OVERLAP = max(map(len, _BLANK_LINES)) - 1

_LINE_BREAK = re.compile(rb"[\r\n]")
_LINE_END = rb"(?:\r\n|\n|\r)"
_NEXT_EVENT = re.compile(rb"\}[ \t]*%(end)b(?:(?:event|id|retry|):[^\r\n]*%(end)b)*data:" % {b"end": _LINE_END})
"""Matches where an event lacks its blank line."""

_BLOCK = re.compile(rb".*?(?:\n\n|\r\r|\n\r\n)[\r\n]*|.+", re.S)
"""Matches an event, or a comment, with its blank line."""


def without_events(whole: bytes, dropped: Sequence[bool]) -> bytes:
    """Return whole events without those that are dropped. Comments stay.

    Args:
        whole: the events.
        dropped: whether each of them is.
    """
    left = iter(dropped)
    blocks = _BLOCK.findall(whole)
    return b"".join(block for block in blocks if not (any(map(bool, Parser().feed(block))) and next(left, False)))


class WholeEvents:
    """A reader of what is handed on of an answer: it holds an event until it is whole, so that another can follow.

    Once events cannot be read any more, bytes are handed on as they come.

    Args:
        read: takes the next event; returns why no other response can follow, ``""`` if one can.
        max_event: cap of one event, in bytes.

    Attributes:
        problem: why no other response can follow, ``""`` if nothing stands against it here.
    """

    def __init__(self, read: Callable[[Event], str], max_event: int) -> None:
        self.problem = ""
        self._take = read
        self._parser = Parser(max_event)
        self._unfinished = bytearray()
        self._max_event = max_event

    def hand_on(self, data: bytes) -> bytes:
        """Take the next bytes; return those that may be handed on now."""
        if self.problem:
            return data
        searched = max(0, len(self._unfinished) - _OVERLAP)
        self._unfinished += data
        ends = ((self._unfinished.rfind(blank, searched), len(blank)) for blank in _BLANK_LINES)
        end = max((at + length for at, length in ends if at >= 0), default=0)
        whole = bytes(self._unfinished[:end])
        del self._unfinished[:end]
        self._read(whole)
        if len(self._unfinished) > self._max_event:
            self.problem = "an event is too large"
        elif _NEXT_EVENT.search(whole) or (_LINE_BREAK.search(data) and _NEXT_EVENT.search(self._unfinished)):
            self.problem = "the server sends no blank lines between its events"
        return whole + self.end() if self.problem else whole

    @property
    def unfinished(self) -> bytes:
        """The beginning of an event that is held."""
        return bytes(self._unfinished)

    def end(self) -> bytes:
        """Return what is held: the stream has ended as it should."""
        rest = bytes(self._unfinished)
        self._unfinished.clear()
        return rest

    def drop(self) -> None:
        """Drop the unfinished event of a cut attempt: it was not handed on."""
        self._unfinished.clear()

    def _read(self, whole: bytes) -> None:
        try:
            for event in self._parser.feed(whole):
                self.problem = self._take(event) or self.problem
        except DecodeError:
            self.problem = "an event of it could not be read"
