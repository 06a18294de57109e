"""One HTTP exchange under the rule: which bytes are held, which may be handed on, and its phase."""

from __future__ import annotations

import enum
import zlib

import msgspec

from unbroken.core.decoding import ContentDecoder, decoder_for
from unbroken.core.dialect import Call, Signal
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.sse import Parser, parse
from unbroken.errors import DecodeError, EventTooLarge

MAX_REFUSAL = 64 * 1024
"""How many bytes of an error response are held to decide whether to retry."""

_OVERLAP = 64  # longer than any match of a dialect's ``notable`` pattern


class Mode(enum.Enum):
    """The way in which the body of an attempt is read."""

    WAITING = "no headers yet"
    STREAM = "events, under the rule"
    WHOLE = "one JSON document, held until it is whole"
    REFUSAL = "an error response, held until it is known whether it is worth waiting"
    OPAQUE = "handed on unread"


class Attempt:
    """The state of one exchange.

    Args:
        number: 1 for the first attempt of the turn.
        call: the generation call.
        policy: the policy whose caps apply.
        started: start time, on the driver's clock.
    """

    def __init__(self, number: int, call: Call, policy: Policy, started: float) -> None:
        self.number = number
        self.started = started
        self.phase = Phase.CONNECT
        self.mode = Mode.WAITING
        self.head: Head | None = None
        self.headers_at: float | None = None
        self.output_at: float | None = None
        self.failure: Failure | None = None
        """The failure found in the body, if any."""
        self.detail = ""
        self.noted: Failure | None = None
        """A failure that is handed on to the caller unaltered; it does not fail the attempt."""
        self._call = call
        self._policy = policy
        self._reader = call.dialect.reader(call.generation)
        self._parser = Parser(policy.max_event, keep_raw=True)
        self._held = bytearray()
        self._decoder = ContentDecoder()

    def open(self, head: Head, mode: Mode) -> None:
        """Take the response's head; ``mode`` says how to read the body."""
        decoder = decoder_for(head)
        if decoder is None and mode is not Mode.REFUSAL:
            mode = Mode.OPAQUE
        if decoder and decoder.changes:
            self._decoder = decoder
            head = head.without("content-encoding", "content-length")
        self.mode = mode
        self.head = head
        self.phase = Phase.OUTPUT if mode is Mode.OPAQUE else Phase.PRELUDE

    def data(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body; return those that may be handed on now.

        Sets :attr:`failure` if the bytes contain a failure that may not be handed on in this phase.
        """
        try:
            chunk = self._decoder.decode(chunk)
        except zlib.error:
            self._decoder = ContentDecoder()
            self.failure, self.detail = Failure.BROKEN_FRAMING, "the content encoding is broken"
            return b""
        if self.mode is Mode.OPAQUE:
            return chunk
        if self.mode is not Mode.STREAM:
            return self._hold_document(chunk)
        return self._hold_prelude(chunk) if self.phase is Phase.PRELUDE else self._copy_through(chunk)

    @property
    def has_more(self) -> bool:
        """Whether bytes that have come are still to be decoded: :meth:`more` takes the next of them."""
        return self._decoder.has_more and self.failure is None

    def more(self) -> bytes:
        """Decode the next slice of what has come; otherwise as :meth:`data`."""
        return self.data(b"")

    def end(self) -> bytes:
        """Take the clean end of the body; return what may be handed on now. Sets :attr:`failure` if it was a cut."""
        if self.mode is Mode.WHOLE and self.phase is Phase.PRELUDE:
            return self._end_document()
        if self.mode is Mode.STREAM and self.phase in (Phase.PRELUDE, Phase.OUTPUT):
            self.failure = Failure.UNFINISHED
            return b""
        if self.mode is Mode.OPAQUE and not self._decoder.whole:
            self.failure, self.detail = Failure.TRUNCATED, "the compressed body is not whole"
            return b""
        self.phase = Phase.COMPLETE
        return b""

    def release(self) -> bytes:
        """Return everything that is held, to be handed on now."""
        if self.phase is Phase.PRELUDE:
            self.phase = Phase.OUTPUT
        held = self._parser.take() + bytes(self._held)
        self._held.clear()
        return held

    def release_refusal(self) -> bytes:
        """Hand on an error response: return the held part now; later bytes are not held."""
        self.mode = Mode.OPAQUE
        return self.release()

    def release_error(self, error: Failure) -> bytes:
        """Hand on an error inside the stream: return what is held, and settle."""
        self.noted, self.failure = error, None
        held = self.release()
        self.phase = Phase.SETTLED
        return held

    @property
    def refusal(self) -> bytes:
        """The body of an error response received so far."""
        return bytes(self._held)

    # A document

    def _hold_document(self, chunk: bytes) -> bytes:
        self._held += chunk
        cap = self._policy.max_event if self.mode is Mode.WHOLE else MAX_REFUSAL
        if self.mode is Mode.WHOLE and len(self._held) > cap:
            self.mode = Mode.OPAQUE
            return self.release()
        return b""

    def _end_document(self) -> bytes:
        if not _is_whole(self._held):
            self.failure, self.detail = Failure.TRUNCATED, "the JSON of the answer is not whole"
            return b""
        held = self.release()
        self.phase = Phase.COMPLETE
        return held

    # A stream of events

    def _hold_prelude(self, chunk: bytes) -> bytes:
        unread = b""
        try:
            unread = self._read(self._parser.whole(chunk))
        except DecodeError as exc:
            self.failure = Failure.EVENT_TOO_LARGE if isinstance(exc, EventTooLarge) else Failure.MALFORMED
            self.detail = str(exc)
        if self.phase is Phase.PRELUDE and (self.failure or self._parser.held <= self._policy.max_prelude):
            return b""
        return self._presentable(self.release(), unread)

    def _copy_through(self, chunk: bytes) -> bytes:
        """Copy the bytes, and search them for the ending: the fast path. Each byte is searched once, however large."""
        try:
            whole = self._parser.whole(chunk)
        except EventTooLarge:  # the bytes are handed on; a typed reader raises
            return self.release() + chunk if self._held else chunk
        if self._held:
            self._held += chunk
            if not whole:
                return b""  # the block that may be an ending is still not whole
            chunk = self.release()
        notable = whole and self._call.dialect.notable.search(whole)
        return self._presentable(chunk, self._read(whole) if notable else b"")

    def _read(self, whole: bytes) -> bytes:
        """Read whole blocks; return the block that failed and those after it, ``b""`` if none failed.

        Raises:
            DecodeError: a broken event before any output; after output the bytes are handed on.
        """
        blocks = whole.split(b"\n\n")
        for number, block in enumerate(blocks):
            try:
                for event in parse(block, self._policy.max_event):
                    self._apply(self._reader.read(event))
            except DecodeError:
                if self.phase is Phase.PRELUDE:
                    raise
            if self.failure:
                return b"\n\n".join(blocks[number:])
        return b""

    def _presentable(self, released: bytes, unread: bytes) -> bytes:
        """Return the part of ``released`` that may be handed on.

        A terminator without an ending is not handed on: it makes a truncated answer look whole. An unfinished block
        that may be an ending is held until it is whole: many readers do not wait for its blank line.
        """
        blocks = self._parser.blocks
        if self.failure:
            return _without_lines(released, unread + blocks.unfinished)[0]
        tail = blocks.tail(len(released) + 2 * _OVERLAP)  # a pattern may also look back a little
        since = max(0, len(tail) - len(released) - _OVERLAP)
        if tail and self.phase is Phase.OUTPUT and self._call.dialect.notable.search(tail, since):
            released, held = _without_lines(released, blocks.unfinished)
            self._held += held
        return released

    def _apply(self, signal: Signal) -> None:
        if signal & Signal.ERROR:
            self._apply_error(signal)
            return
        if signal & Signal.OUTPUT and self.phase is Phase.PRELUDE:
            self.phase = Phase.OUTPUT
        if signal & Signal.SETTLES and self.phase is not Phase.COMPLETE:
            self.phase = Phase.SETTLED
        if signal & Signal.ENDS:
            if self.phase in (Phase.SETTLED, Phase.COMPLETE):
                self.phase = Phase.COMPLETE
            else:
                self.failure = Failure.UNFINISHED

    def _apply_error(self, signal: Signal) -> None:
        """Leave an error before output to the turn; after output hand it on and settle."""
        failure = Failure.TRANSIENT_ERROR if signal & Signal.TRANSIENT_ERROR else Failure.PERMANENT_ERROR
        if self.phase is Phase.PRELUDE:
            self.failure = failure
        elif self.phase is Phase.OUTPUT:
            self.noted = failure
            self.phase = Phase.SETTLED


def _without_lines(data: bytes, tail: bytes) -> tuple[bytes, bytes]:
    """Split off as many lines as ``tail`` has; the line ends of the two may differ."""
    lines = data.splitlines(keepends=True)
    kept = max(0, len(lines) - len(tail.splitlines()))
    return b"".join(lines[:kept]), b"".join(lines[kept:])


def _is_whole(document: bytes | bytearray) -> bool:
    """Return whether a document is complete JSON; Python's parser also accepts the ``NaN`` that some servers write."""
    try:
        msgspec.json.decode(document, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        import json  # rarely needed

        try:
            json.loads(document)
        except (ValueError, RecursionError):
            return False
    return True
