"""One HTTP exchange under the rule: which bytes are held, which may be handed on, and its phase."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING

from unbroken.core.decoding import ContentDecoder, UnsupportedEncoding, decoder_for
from unbroken.core.dialect import Call, Signal, severity
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.payload import is_document
from unbroken.core.policy import Policy
from unbroken.core.route import RouteRecord
from unbroken.core.sse import Event, Parser, begins_as_events, parse
from unbroken.core.template import Template
from unbroken.errors import DecodeError, EventTooLarge

if TYPE_CHECKING:
    from unbroken.core.resumption.events import ResumableEvents

MAX_REFUSAL = 64 * 1024
"""How many bytes of an error response are held to decide whether to retry."""

_LAST = Signal.SETTLES | Signal.ENDS | Signal.ERROR
"""What an event means that may be the last of its stream."""

_OVERLAP = 64  # longer than any match of a dialect's ``notable`` pattern

_ACCEPT_DONE = (
    "it sent its terminator without a finish reason; if this server never sends one, accept the terminator as proof:"
    " Policy.accept_done, --accept-done, or accept_done = true for an upstream of the relay"
)


class Mode(enum.Enum):
    """The way in which the body of an attempt is read."""

    WAITING = "no headers yet"
    SNIFFING = "held until it is known whether it begins as an event stream, whatever its media type"
    STREAM = "events, under the rule"
    WHOLE = "one JSON document, held until it is whole"
    REFUSAL = "an error response, held until it is known whether it is worth waiting"
    OPAQUE = "handed on unread"


class FinishProof(enum.Enum):
    """How far the finish of an attempt proves that its answer is whole."""

    MISSING = "the answer goes on"
    EARLY = "it came in or before the first output: the terminator or a clean end must prove it"
    STANDS = "the attempt has settled"
    TAKEN_BACK = "output followed it: this server's finish proves nothing, only its last event does"


class Attempt:
    """The state of one exchange.

    Args:
        number: 1 for the first attempt of the turn.
        call: the generation call.
        policy: the policy whose caps apply.
        started: start time, on the driver's clock.
        events: the events of its response, if that can be resumed: the attempt reads and hands on whole ones only.
    """

    def __init__(
        self, number: int, call: Call, policy: Policy, started: float, events: ResumableEvents | None = None
    ) -> None:
        self.number = number
        self.started = started
        self.awaited_since = started
        """Since when its response is waited for: it may have been asked for by an attempt that was cut."""
        self.phase = Phase.CONNECT
        """How far the model has come, whether or not that was handed on."""
        self.has_spoken = False
        """Whether its body may be handed on; before that it is held."""
        self.mode = Mode.WAITING
        self.head: Head | None = None
        self.first_head: Head | None = None
        """The head of the stream that the response began with."""
        self.route = RouteRecord()
        """What the wire knows of the path."""
        self.headers_at: float | None = None
        self.output_at: float | None = None
        self.failure: Failure | None = None
        """The failure found in the body, if any."""
        self.detail = ""
        self.noted: Failure | None = None
        """A failure that is handed on to the caller unaltered; it does not fail the attempt."""
        self.retry_after: float | None = None
        """Seconds after which the error in the body says that it passes."""
        self.usage_came = False
        """Whether usage was reported after the attempt settled: only the end of the body is owed."""
        self.progress = 0
        """How many events have come that were more than a keepalive."""
        self.outputs = 0
        """How many events with output were read: all of them before the first output, and after it if that counts."""
        self._events = events
        self._reached = Phase.PRELUDE  # by the answer, when its stream was cut
        self._had_spoken = False
        self._call = call
        self._policy = policy
        self._reader = call.dialect.reader(call.generation)
        self._parser = Parser(policy.max_event, keep_raw=True)
        self._max_held = policy.max_prelude if policy.hold == "prelude" else policy.max_hold
        self._held = bytearray()
        self._decoder = ContentDecoder()
        self._template = Template()
        self._finish = FinishProof.MISSING
        self._has_finished = False
        self._reopened = False
        self._has_failed = False

    @property
    def finish_reason(self) -> str:
        """The provider's finish reason, ``""`` before one."""
        return self._reader.finish_reason

    @property
    def shown_phase(self) -> Phase:
        """The phase by what may be handed on: held output can still be replayed, as a prelude can."""
        return Phase.PRELUDE if self.phase is Phase.OUTPUT and not self.has_spoken else self.phase

    @property
    def held(self) -> int:
        """How many bytes of the body are held until the attempt speaks."""
        return 0 if self.has_spoken else self._parser.held + len(self._held)

    @property
    def runs_tool(self) -> bool:
        """Whether a tool of the server runs, so that no output is due. Known only while each event is read."""
        return self._reader.runs_tool

    def pass_through(self, events: ResumableEvents) -> None:
        """Have the body pass through this filter. Call it before the first byte of it."""
        self._events = events

    @property
    def has_output(self) -> bool:
        """Whether output has come of its response, perhaps before the stream was taken up."""
        return self.phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE) or self._reached is Phase.OUTPUT

    @property
    def has_ended(self) -> bool:
        """Whether its response has told how it ended."""
        return self.phase in (Phase.SETTLED, Phase.COMPLETE)

    @property
    def had_spoken(self) -> bool:
        """Whether the body was handed on already when the stream was cut that is taken up."""
        return self._had_spoken

    def take_up(self, number: int, started: float) -> None:
        """Become the attempt that takes up the response whose stream was cut: what was read and held of it stays."""
        if self.mode is Mode.STREAM:
            self._reached, self._had_spoken = self.phase, self.has_spoken
        self.number, self.started, self.phase, self.mode = number, started, Phase.CONNECT, Mode.WAITING
        self.head = self.headers_at = self.output_at = self.failure = self.noted = self.retry_after = None
        self.detail, self.route = "", RouteRecord()
        self._held.clear()  # of an error response
        self._decoder = ContentDecoder()

    def fall_back(self) -> None:
        """Return to the state in which the stream was cut: it is not taken up."""
        if self._events and self._events.is_resumed and self.mode is not Mode.STREAM:
            self.mode, self.phase, self.has_spoken = Mode.STREAM, self._reached, self._had_spoken
            self._held.clear()

    def open(self, head: Head, mode: Mode) -> None:
        """Take the response's head; ``mode`` says how to read the body. Sets :attr:`failure` if that is impossible."""
        self.mode = mode
        self.has_spoken = mode is Mode.OPAQUE or self._had_spoken
        self.phase = Phase.OUTPUT if mode is Mode.OPAQUE else self._reached
        try:
            self._decoder = decoder_for(head)
        except UnsupportedEncoding as exc:
            if head.status < 300:
                self.failure, self.detail = Failure.UNSUPPORTED_ENCODING, str(exc)
        if self._decoder.changes:
            head = head.without("content-encoding", "content-length")
        self.head, self.first_head = head, self.first_head or head

    def data(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body; return those that may be handed on now.

        Sets :attr:`failure` if the bytes contain a failure that may not be handed on in this phase.
        """
        if self._decoder.changes:
            try:
                chunk = self._decoder.decode(chunk)
            except DecodeError as exc:
                self._decoder = ContentDecoder()
                self.failure, self.detail = Failure.BROKEN_FRAMING, str(exc)
                return b""
        if self.mode is Mode.STREAM:
            if self.has_spoken and not self._events:
                return self._copy_through(chunk)  # at once: it is done for each event of nearly every stream
            return self._take_events(chunk)
        if self.mode is Mode.OPAQUE:
            return chunk
        return self._sniff(chunk) if self.mode is Mode.SNIFFING else self._hold_document(chunk)

    @property
    def has_more(self) -> bool:
        """Whether bytes that have come are still to be decoded: :meth:`more` takes the next of them."""
        return self._decoder.has_more and self.failure is None

    def more(self) -> bytes:
        """Decode the next slice of what has come; otherwise as :meth:`data`."""
        return self.data(b"")

    def end(self) -> bytes:
        """Take the clean end of the body; return what may be handed on now. Sets :attr:`failure` if it was a cut."""
        rest = self.rest()
        return rest + self._end()

    def rest(self) -> bytes:
        """Return what of an unfinished event may be handed on, at the end of a stream that can be resumed."""
        if self._events is None or self.mode is not Mode.STREAM:
            return b""
        if self.phase in (Phase.PRELUDE, Phase.OUTPUT):
            event = self._events.last_event()
            if event is None or not self._signal_of(event) & _LAST:
                return b""  # it is half of an event, or not the last: it comes again
        return self._pass(self._events.end())

    def _end(self) -> bytes:
        if self.mode is Mode.WHOLE and self.phase is Phase.PRELUDE:
            return self._end_document()
        if self.mode is Mode.SNIFFING:
            return self._end_untold()
        if self.mode is Mode.STREAM and self.phase in (Phase.PRELUDE, Phase.OUTPUT):
            return self._end_stream()
        if self.mode is Mode.OPAQUE and not self._decoder.whole:
            self.failure, self.detail = Failure.TRUNCATED, "the compressed body is not whole"
            return b""
        self.phase = Phase.COMPLETE
        return b""

    def speak(self) -> bytes:
        """Hold no more than by default, whatever the policy says: return what may be handed on of it now."""
        is_prelude = self.phase is Phase.PRELUDE and self._parser.held <= self._policy.max_prelude
        if self.has_spoken or self.mode not in (Mode.STREAM, Mode.WHOLE) or (self.mode is Mode.STREAM and is_prelude):
            return b""
        if self.mode is Mode.WHOLE:
            self.mode = Mode.OPAQUE
            return self.release()
        return self._presentable(self.release(), b"")

    def release(self) -> bytes:
        """Return everything that is held, to be handed on now."""
        self.has_spoken = True
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
        self.noted, self.failure, self._has_failed = error, None, True
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
        too_large = self.mode is Mode.WHOLE and len(self._held) > self._policy.max_hold
        return self.speak() if too_large else b""

    def _end_document(self) -> bytes:
        if not is_document(self._held):
            self.failure, self.detail = Failure.TRUNCATED, "the JSON of the answer is not whole"
            return b""
        held = self.release()
        self.phase = Phase.COMPLETE
        return held

    # A body of another media type

    def _sniff(self, chunk: bytes) -> bytes:
        """Hold bytes until it is known what they begin; then treat them all accordingly."""
        self._held += chunk
        if (is_stream := begins_as_events(self._held)) is None:
            return b""
        if not self._call.streaming and self._held.lstrip()[:1] == b"{":
            self.mode = Mode.WHOLE
            return self._hold_document(b"")
        if not is_stream or not self._call.streaming:
            return self._as_other_content()
        self.mode = Mode.STREAM
        held = bytes(self._held)
        self._held.clear()
        return self._take_events(held)

    def _end_untold(self) -> bytes:
        """End a body of which nothing could be told: of a stream at most its first field's name has come."""
        if self._call.streaming:
            self.mode, self.failure, self.detail = Mode.STREAM, Failure.UNFINISHED, "nothing came of it"
            return b""
        held = self._as_other_content()
        self.phase = Phase.COMPLETE
        return held

    def _as_other_content(self) -> bytes:
        self.mode, self.noted = Mode.OPAQUE, Failure.OTHER_CONTENT
        return self.release()

    # A stream of events

    def _take_events(self, chunk: bytes) -> bytes:
        if self._events:
            chunk = self._events.hand_on(chunk)
            if self._events.misfit:
                self.failure, self.detail = Failure.MISFIT, self._events.misfit
                return b""
        given = self._pass(chunk)
        if self._events and self._events.cut and not self.failure:
            self.failure, self.detail = Failure.TRUNCATED, self._events.cut
        return given

    def _pass(self, chunk: bytes) -> bytes:
        return self._copy_through(chunk) if self.has_spoken else self._hold_stream(chunk)

    def _hold_stream(self, chunk: bytes) -> bytes:
        unread = b""
        try:
            whole = self._parser.whole(chunk)
            unread = self._read(whole) if whole and (not self._skims or self._is_notable(whole)) else b""
        except DecodeError as exc:
            self._note_unreadable(exc)
        if not self.has_spoken and (self.failure or self._parser.held <= self._max_held):
            return b""
        return self._presentable(self.release(), unread)

    def _note_unreadable(self, error: DecodeError) -> None:
        """Note an event that cannot be read: a failure before output, and then output that may be of any kind."""
        if self.phase is Phase.PRELUDE:
            self.failure = Failure.EVENT_TOO_LARGE if isinstance(error, EventTooLarge) else Failure.MALFORMED
            self.detail = str(error)
        elif self._policy.hold != "answer":
            self.has_spoken = True

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
        return self._presentable(chunk, self._read(whole) if whole and self._is_notable(whole) else b"")

    @property
    def _skims(self) -> bool:
        """Whether only blocks that may be an ending or an error are read: further output changes nothing."""
        return self.phase is Phase.OUTPUT and (self.has_spoken or self._policy.hold == "answer")

    def _is_notable(self, blocks: bytes) -> object:
        """Return whether blocks after the first output are to be read, and not only held or handed on."""
        if self._has_finished or self._policy.stall_output_timeout is not None:
            return True
        if self._template.covers(blocks):
            return False
        found = self._call.dialect.notable.search(blocks)
        if not found:
            self._template.learn(blocks)
        return found

    def _read(self, whole: bytes) -> bytes:
        """Read whole blocks; return the block that failed and those after it, ``b""`` if none failed.

        Raises:
            DecodeError: a broken event before any output; after output the bytes are handed on.
        """
        blocks = whole.split(b"\n\n")
        for number, block in enumerate(blocks):
            if self._skims and not self._is_notable(block + b"\n\n"):
                continue  # a burst brings hundreds of events with the first output, and with the ending
            try:
                for event in parse(block, self._policy.max_event):
                    self._apply(self._signal_of(event), event)
            except DecodeError as exc:
                if self.phase is Phase.PRELUDE:
                    raise
                self._note_unreadable(exc)
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
        if not blocks.has_unfinished:
            return released
        tail = blocks.tail(len(released) + 2 * _OVERLAP)  # a pattern may also look back a little
        since = max(0, len(tail) - len(released) - _OVERLAP)
        if self.phase is Phase.OUTPUT and self._call.dialect.notable.search(tail, since):
            released, held = _without_lines(released, blocks.unfinished)
            self._held += held
        return released

    def _signal_of(self, event: Event) -> Signal:
        if not event.is_bare:
            return self._reader.read(event)
        error = self._call.dialect.error_in(event.data)  # of a bare document only an error counts
        return Signal.SILENT if error is None else severity(error)

    def _apply(self, signal: Signal, event: Event) -> None:
        if signal & Signal.ERROR:
            self._apply_error(signal, event)
            return
        self.progress += signal is not Signal.SILENT
        self.outputs += bool(signal & Signal.OUTPUT)
        self._has_finished |= bool(signal & (Signal.FINISHES | Signal.SETTLES))
        self._apply_finish(signal)
        if signal & Signal.OUTPUT and self.phase is Phase.PRELUDE:
            self.phase = Phase.OUTPUT
        if self._finish is FinishProof.STANDS and self.phase in (Phase.PRELUDE, Phase.OUTPUT):
            self.phase = Phase.SETTLED
        if signal & Signal.USAGE and self.phase is Phase.SETTLED:
            self.usage_came = True
        if signal & Signal.ENDS:
            self._apply_terminator()
        self.has_spoken = self.has_spoken or self._speaks(signal)

    def _speaks(self, signal: Signal) -> bool:
        """Return whether the attempt speaks with this event."""
        if self.phase is Phase.OUTPUT:
            hold = self._policy.hold
            return hold == "prelude" or (hold == "reasoning" and bool(signal & Signal.ANSWER))
        return self.phase is not Phase.PRELUDE

    def _apply_finish(self, signal: Signal) -> None:
        """Note how far a finish in this event, or output behind an earlier one, proves the end."""
        if signal & Signal.REOPENS and not self._has_failed:
            self._reopened = True
            if self._finish is not FinishProof.MISSING:  # else other choices have not finished at all
                self._finish = FinishProof.TAKEN_BACK
            if self.phase is Phase.SETTLED:
                self.phase, self.usage_came = Phase.OUTPUT, False
        if signal & Signal.SETTLES and self._finish is FinishProof.MISSING:
            self._finish = self._proof_of_finish

    @property
    def _proof_of_finish(self) -> FinishProof:
        """How far the finish of the last choice proves the end."""
        if self._reopened:
            return FinishProof.TAKEN_BACK
        return FinishProof.EARLY if self.phase is Phase.PRELUDE else FinishProof.STANDS

    def _apply_terminator(self) -> None:
        if self._finish is not FinishProof.MISSING or self._policy.accept_done or self.phase is Phase.SETTLED:
            self.phase = Phase.COMPLETE
        elif self.phase is not Phase.COMPLETE:
            self.failure, self.detail = Failure.UNFINISHED, _ACCEPT_DONE

    def _apply_error(self, signal: Signal, event: Event) -> None:
        """Leave an error to the turn while everything is held; later hand it on and settle."""
        failure = Failure.TRANSIENT_ERROR if signal & Signal.TRANSIENT_ERROR else Failure.PERMANENT_ERROR
        if not self.has_spoken:
            self.failure = failure
            error = self._call.dialect.error_in(event.data)
            self.retry_after = error.retry_after if error else None
            return
        self._has_failed = True  # an error is an ending, which later output does not take back
        if self.phase is Phase.OUTPUT:
            self.noted = failure
            self.phase = Phase.SETTLED

    def _end_stream(self) -> bytes:
        """Take the clean end of a stream that has not settled: it may prove a finish that did not stand alone."""
        phase, has_spoken = self.phase, self.has_spoken
        with contextlib.suppress(DecodeError):  # an event that was cut
            self._read_rest()
        if self.failure or self.phase in (Phase.SETTLED, Phase.COMPLETE):
            self.phase = self.phase if self.failure else Phase.COMPLETE
        elif self._finish is FinishProof.EARLY or (
            self._finish is FinishProof.TAKEN_BACK and not self._call.dialect.has_terminator
        ):
            self.phase = Phase.COMPLETE
        else:
            self.failure = Failure.UNFINISHED
            self.phase, self.has_spoken = phase, has_spoken  # of output in the last event nothing is handed on
        return b"" if self.failure else self.release()

    def _read_rest(self) -> None:
        """Read a last event that only lacks its blank line. Where readers drop it, output in it would be lost."""
        for event in self._parser.end():
            signal = self._signal_of(event)
            if not signal & Signal.OUTPUT or not self._call.dialect.has_terminator:
                self._apply(signal, event)


def _without_lines(data: bytes, tail: bytes) -> tuple[bytes, bytes]:
    """Split off as many lines as ``tail`` has. Blank lines do not count, and the line ends of the two may differ."""
    lines = data.splitlines(keepends=True)
    filled = [number for number, line in enumerate(lines) if line.strip(b"\r\n")]
    count = sum(map(bool, tail.splitlines()))
    kept = len(lines) if not count else filled[-count] if count <= len(filled) else 0
    return b"".join(lines[:kept]), b"".join(lines[kept:])
