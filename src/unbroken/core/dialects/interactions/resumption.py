"""Resuming an interaction that runs in the background.

Some of its events have an id, by which a request names the place to go on from. What comes then are the events behind
it, among them those without an id that had come already: they are compared with these, and dropped.

Sources: Gemini API docs, "Streaming interactions" and "Background execution"; Gemini API reference, "interactions.get"
(``last_event_id``: the stream goes on from the next chunk after that event); the types of the ``google-genai`` SDK 3.4;
Google AI forum, threads 143098 and 143099 (which events have ids; the error that ends a stream after ten minutes).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from unbroken.core.dialects.common.background import BACKGROUND
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.interactions.errors import (
    error_in,
    error_of_event,
    event_kind,
    interaction_of,
    says_nothing,
    status_of,
)
from unbroken.core.dialects.interactions.rule import PROGRESS
from unbroken.core.http import Request
from unbroken.core.payload import count, is_done, mapping, text
from unbroken.core.resumption.format import Bookmark, Resumption
from unbroken.core.resumption.requests import about
from unbroken.core.sse import Event

LEAST_REPETITION = 32
"""How many characters must come again, one for one, to be known as those that had come."""

MAX_BEHIND = 1024 * 1024
"""How many bytes of events without ids are kept to be compared."""

MAX_IDS = 4096
"""How many of the last ids are kept: an event with one of them had come, if it is the same."""

_ONCE = frozenset({"step.start", "step.stop", "content.start", "content.stop"})
"""Events of which there is one for each step: none of them comes again by chance."""

_STARTS = frozenset({"step.start", "content.start"})

_FIRST = frozenset({"interaction.created", "interaction.start"})
"""The first event of an interaction."""


class InteractionsBookmark(Bookmark):
    """A bookmark of an interaction, of whose events some have ids."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._behind = _Behind()
        self._expected: deque[_Kept] = deque()
        self._is_opening = False
        self._last_step: int | None = None

    def take_up(self) -> None:
        """See :meth:`unbroken.core.resumption.format.Bookmark.take_up`."""
        self._expected, self._is_opening = deque(self._behind.events), True

    def cut_by(self, event: Event) -> str:
        """See :meth:`unbroken.core.resumption.format.Bookmark.cut_by`.

        An error that is no event, but bare JSON, is one of the server before the model: it ends the stream.
        """
        error = error_in(event.data) if event.is_bare else None
        return f"the server broke it off: {error.message}" if error and error.transient else ""

    def read(self, event: Event) -> bool:
        """See :meth:`unbroken.core.resumption.format.Bookmark.read`."""
        self.has_come_before = False
        if self.problem or event.is_keepalive or is_done(event.data):
            return False
        answer = mapping(parsed(event.data, event.type))
        kind = event_kind(answer, event)
        if error_of_event(kind, answer) is not None or says_nothing(kind, answer):
            return False
        self._note_response(answer)
        named = text(answer.get("event_id"))
        written = _written(answer)
        if self._is_opening and named in self._ids and kind not in _FIRST:
            self.has_come_before = self._ids[named] == hash(written)
            self.problem = "" if self.has_come_before else f"event {named} came again, and was another"
            return False
        is_update = kind in PROGRESS and kind not in _ONCE and not status_of(kind, answer)
        if is_update and (kind in _FIRST or not named):
            self.has_come_before = self._is_opening
            self._move(named, written)
            return False
        self._is_opening = False
        return self._follow(kind, answer, named, written)

    def _note_response(self, answer: dict[str, Any]) -> None:
        name = interaction_of(answer).get("id") if "interaction" in answer else answer.get("interaction_id")
        self.response = self.response or text(name)
        self.obstacle = self._obstacle

    def _follow(self, kind: str, answer: dict[str, Any], named: str, written: bytes) -> bool:
        """Take an event that is a part of the answer; return whether it is a new one."""
        if self._expected:
            if written != self._expected.popleft().written:
                self.problem = "other events came behind the last one with an id than before"
                return False
            self.has_come_before = True
        elif problem := self._misplaced(kind, answer):
            self.problem = problem
            return False
        elif self.position and not named:
            self._behind.add(_Kept(written, kind in _ONCE, sum(map(len, _texts(answer.get("delta"))))))
        self._move(named, written)
        return not self.has_come_before

    def _misplaced(self, kind: str, answer: dict[str, Any]) -> str:
        """Return why an event cannot follow those before it: a step is missing. Nothing else is numbered."""
        index, last = count(answer.get("index")), self._last_step
        if index is None or not kind.startswith(("step.", "content.")):
            return ""
        if kind in _STARTS:
            self._last_step = index
            return f"step {last:,} is followed by step {index:,}" if last is not None and index != last + 1 else ""
        return f"step {index:,} goes on, which has not begun" if last is None or index > last else ""

    def _move(self, named: str, written: bytes) -> None:
        """Move the position to an event with an id; what is still expected had come behind it."""
        if named and not (self._is_opening and self.has_come_before):
            self.position, self._behind = named, _Behind()
            self._ids[named] = hash(written)
            if len(self._ids) > MAX_IDS:
                del self._ids[next(iter(self._ids))]
            for kept in self._expected:
                self._behind.add(kept)
        self.obstacle = self._obstacle

    @property
    def _obstacle(self) -> str:
        if not self.position:
            return "no event with an id had come" if self.response else ""
        return self._behind.obstacle


class _Kept(NamedTuple):
    """An event without an id.

    Attributes:
        written: what it says.
        is_unique: whether there is only one like it.
        size: how many characters it brings.
    """

    written: bytes
    is_unique: bool
    size: int


class _Behind:
    """The events without an id behind the last one that has one, in order."""

    def __init__(self) -> None:
        self.events: list[_Kept] = []
        self._bytes = self._characters = 0
        self._has_unique = False

    def add(self, kept: _Kept) -> None:
        """Keep an event, unless there are too many."""
        self._bytes += len(kept.written)
        self._characters += kept.size
        self._has_unique = self._has_unique or kept.is_unique
        if self._bytes <= MAX_BEHIND:
            self.events.append(kept)
        else:
            self.events.clear()

    @property
    def obstacle(self) -> str:
        """Why they would not be known if they came again, ``""`` if they would."""
        if self._bytes > MAX_BEHIND:
            return "too much had come behind the last event with an id"
        is_told = self._has_unique or self._characters >= LEAST_REPETITION or not self.events
        return "" if is_told else "too little had come behind the last event with an id to know it again"


def _written(answer: dict[str, Any]) -> bytes:
    """Return what an event says, without what may differ when it comes again."""
    said = {name: value for name, value in answer.items() if name not in ("event_id", "metadata")}
    return msgspec.json.encode(said, order="sorted")


def _texts(delta: object) -> Iterator[str]:
    if isinstance(delta, str):
        yield delta
    elif isinstance(delta, dict):
        for name, value in delta.items():
            yield from _texts(value) if name != "type" else ()
    elif isinstance(delta, list):
        for value in delta:
            yield from _texts(value)


def resume(request: Request, response: str, position: str) -> Request:
    """Return the request for the events behind a position."""
    query = [("stream", "true"), ("last_event_id", position)]
    return about(request, response, "GET", query=query).with_headers(accept="text/event-stream")


RESUMPTION = Resumption(bookmark=InteractionsBookmark, resume=resume, background=BACKGROUND)
