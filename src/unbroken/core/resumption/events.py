"""The events of a response that may be resumed: only whole ones are passed on, and each must follow the one before."""

from __future__ import annotations

from unbroken.core.resumption.format import Bookmark
from unbroken.core.sse import BOM, Event, Parser
from unbroken.core.whole_events import WholeEvents, without_events


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
        cut: why an event has ended the present stream, although the response goes on; ``""`` if none has.
    """

    def __init__(self, bookmark: Bookmark, max_event: int) -> None:
        self.came = 0
        self.is_resumed = False
        self.cut = ""
        self._dropped: list[bool] = []
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
        if problem := self._events.problem or self._bookmark.obstacle:
            return problem
        return "" if self.response and self.position else "the response's id had not come"

    @property
    def misfit(self) -> str:
        """Why what has come of a resumed stream does not follow what came before, ``""`` if it does."""
        return self._events.problem if self.is_resumed else ""

    def hand_on(self, data: bytes) -> bytes:
        """Take the next bytes; return the events that are whole. Of a misfit nothing is returned."""
        self._dropped.clear()
        whole = self._events.hand_on(data)
        if self._at_start and whole:
            whole, self._at_start = whole.removeprefix(BOM), False
        if True in self._dropped:
            whole = without_events(whole, self._dropped)
        return b"" if self.misfit else whole

    def take_up(self) -> None:
        """Begin a stream that goes on behind the last whole event: half of another one is dropped."""
        self._events = WholeEvents(self._read, self._max_event)
        self.is_resumed, self.cut, self._at_start = True, "", True
        self._bookmark.take_up()

    def last_event(self) -> Event | None:
        """Return the event that lacks only its blank line, at the end of a stream; ``None`` without one that counts."""
        parser = Parser(self._max_event)
        parser.whole(self._events.unfinished)
        event = next(parser.end(), None)
        return None if event and self._bookmark.cut_by(event) else event

    def end(self) -> bytes:
        """Return what is held, at the end of a stream that has ended as it should."""
        return self._events.end()

    def _read(self, event: Event) -> str:
        bookmark = self._bookmark
        self.cut = self.cut or bookmark.cut_by(event)
        self.came += not self.cut and bookmark.read(event)
        self._dropped.append(bool(self.cut) or bookmark.has_come_before)
        return bookmark.problem
