"""The events of a response that may be resumed: only whole ones are passed on, and each must follow the one before."""

from __future__ import annotations

from unbroken.core.resumption.format import Bookmark
from unbroken.core.sse import BOM, Event, Parser
from unbroken.core.whole_events import WholeEvents


class ResumableEvents:
    """A filter of one response's bytes, over all of its streams, in front of what reads and holds them.

    In the stream that the response began with, events that do not follow one another are passed on: another reader
    takes them too, and only resuming is impossible. In a stream that was resumed they are not: they are what resuming
    must not hand on.

    Args:
        bookmark: reads the events.
        max_event: cap of one event, in bytes.

    Attributes:
        came: how many events have come that moved the bookmark.
        is_resumed: whether the present stream is a resumed one.
    """

    def __init__(self, bookmark: Bookmark, max_event: int) -> None:
        self.came = 0
        self.is_resumed = False
        self._bookmark = bookmark
        self._max_event = max_event
        self._events = WholeEvents(self._read, max_event)
        self._at_start = False

    @property
    def response(self) -> str:
        """The response's id, ``""`` if it is not known."""
        return self._bookmark.response

    @property
    def position(self) -> str:
        """The place of the last event, ``""`` if it is not known."""
        return self._bookmark.position

    @property
    def problem(self) -> str:
        """Why the response cannot be taken up behind what has come, ``""`` if it can."""
        if self._events.problem:
            return self._events.problem
        return "" if self.response and self.position else "the response's id had not come"

    @property
    def misfit(self) -> str:
        """Why what has come of a resumed stream does not follow what came before, ``""`` if it does."""
        return self._events.problem if self.is_resumed else ""

    def hand_on(self, data: bytes) -> bytes:
        """Take the next bytes; return the events that are whole. Of a misfit nothing is returned."""
        whole = self._events.hand_on(data)
        if self._at_start and whole:
            whole, self._at_start = whole.removeprefix(BOM), False
        return b"" if self.misfit else whole

    def take_up(self) -> None:
        """Begin a stream that goes on behind the last whole event: half of another one is dropped."""
        self._events = WholeEvents(self._read, self._max_event)
        self.is_resumed = self._at_start = True

    def last_event(self) -> Event | None:
        """Return the event that only lacks its blank line, at the end of a stream; ``None`` if there is none."""
        parser = Parser(self._max_event)
        parser.whole(self._events.unfinished)
        return next(parser.end(), None)

    def end(self) -> bytes:
        """Return what is held, at the end of a stream that has ended as it should."""
        return self._events.end()

    def _read(self, event: Event) -> str:
        self.came += self._bookmark.read(event)
        return self._bookmark.problem
