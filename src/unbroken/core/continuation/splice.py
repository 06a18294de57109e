"""Handing on of events around a seam: whole events only before it, rewritten ones behind it."""

from __future__ import annotations

import re

from unbroken.core.continuation.format import Part, Rewriter, Transcript
from unbroken.core.continuation.seam import Seam, SeamState
from unbroken.core.sse import Event, Parser, parse
from unbroken.errors import DecodeError

MAX_TEXT = 4 * 1024 * 1024
"""Characters of an answer that can be continued: more is not kept."""

_BLANK_LINES = (b"\n\n", b"\r\r", b"\n\r\n")
"""The ends of an event (WHATWG HTML, "Interpreting an event stream")."""

_OVERLAP = max(map(len, _BLANK_LINES)) - 1

_LINE_BREAK = re.compile(rb"[\r\n]")
_LINE_END = rb"(?:\r\n|\n|\r)"
_NEXT_EVENT = re.compile(rb"\}[ \t]*%(end)b(?:(?:event|id|retry|):[^\r\n]*%(end)b)*data:" % {b"end": _LINE_END})
"""Matches where an event lacks its blank line."""


class WholeEvents:
    """A reader of what is handed on of an answer: it holds an event until it is whole, so that another can follow.

    Once events cannot be read any more, bytes are handed on as they come.

    Args:
        transcript: reads the events.
        max_event: cap of one event, in bytes.

    Attributes:
        problem: why the answer cannot be continued, ``""`` if nothing stands against it here.
    """

    def __init__(self, transcript: Transcript, max_event: int) -> None:
        self.problem = ""
        self._transcript = transcript
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
                self._transcript.read(event)
        except DecodeError:
            self.problem = "an event of it could not be read"
        if self._transcript.size > MAX_TEXT:
            self.problem = f"it is longer than {MAX_TEXT:,} characters"


class Splice:
    """The events of a continuation, as they follow those that the caller has.

    Nothing is handed on until the seam is known to be good.

    Args:
        seam: the check of its beginning.
        rewriter: rewrites the events.
        max_event: cap of one event, in bytes.

    Attributes:
        problem: why the continuation does not fit, ``""`` if it does so far.
        has_joined: whether something of it may be handed on.
    """

    def __init__(self, seam: Seam, rewriter: Rewriter, max_event: int) -> None:
        self.problem = ""
        self.has_joined = False
        self._seam = seam
        self._rewriter = rewriter
        self._parser = Parser(max_event)
        self._max_event = max_event
        self._held: list[Part] = []
        self._has_text = False

    def hand_on(self, data: bytes) -> bytes:
        """Take the next bytes of the continuation; return those for the caller."""
        try:
            return self._read(self._parser.whole(data))
        except DecodeError as exc:
            self.problem = str(exc)
            return b""

    def end(self) -> bytes:
        """Take the end of the continuation; return what is still to be handed on."""
        try:
            rest = b"".join(map(self._event, self._parser.end()))
        except DecodeError:  # an event that was cut
            rest = b""
        self._seam.end()
        return rest + self._joined()

    def _read(self, blocks: bytes) -> bytes:
        ready = []
        for block in blocks.split(b"\n\n"):
            events = list(parse(block, self._max_event))
            if not events and block.startswith(b":"):
                ready.append(block + b"\n\n")
            ready += map(self._event, events)
        return b"".join(ready)

    def _event(self, event: Event) -> bytes:
        if self.problem:
            return b""
        part = self._rewriter.part(event)
        if self.has_joined:
            return part.write(part.text)
        self._held.append(part)
        self._has_text = self._has_text or bool(part.text)
        if part.problem and not (self._has_text and part.text == ""):
            self.problem = part.problem
            return b""
        self._seam.feed(part.text)
        if part.decides:
            self._seam.end()
        return self._joined()

    def _joined(self) -> bytes:
        """Return what was held, without what the caller has, once the seam is known to be good."""
        self.problem = self._seam.problem
        if self._seam.state is not SeamState.JOINED:
            return b""
        self.has_joined = True
        drop, ready = self._seam.drop, []
        for part in self._held:
            ready.append(part.write(part.text[drop:]))
            drop -= min(drop, len(part.text))
        self._held.clear()
        return b"".join(ready)
