"""Handing on of the events behind a seam, rewritten as those before it."""

from __future__ import annotations

from unbroken.core.continuation.format import Part, Rewriter
from unbroken.core.continuation.seam import Seam, SeamState
from unbroken.core.sse import Event, Parser, parse
from unbroken.errors import DecodeError


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
