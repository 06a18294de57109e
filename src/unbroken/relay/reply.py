"""The response to one generation call: its beginning, heartbeats between its events, and its end."""

from __future__ import annotations

import re
from collections.abc import Callable

import anyio
import anyio.lowlevel

from unbroken.core.dialect import Dialect, GatewayError
from unbroken.core.http import Head, Headers
from unbroken.core.report import Report
from unbroken.core.sse import is_whole_event
from unbroken.errors import StreamCut
from unbroken.relay import asgi, headers

_BLANK_LINES = (b"\n\n", b"\r\r", b"\n\r\n")
"""The ends of an event (WHATWG HTML, "Interpreting an event stream")."""

_MAX_HELD = 64 * 1024
"""How many bytes of an unfinished event are held; a longer one is handed on as it comes."""

_SHARE = 64 * 1024
"""Bytes that are handed on before other turns get their turn, while an upstream always has more."""

_OVERLAP = max(map(len, _BLANK_LINES)) - 1
"""How many bytes of a blank line may have come before the rest of it."""

_BOM = b"\xef\xbb\xbf"
"""Allowed only at the very beginning of a stream; after a heartbeat it would become part of a field's name."""

_ID_FIELD = re.compile(rb"(?:\A|[\r\n])id[:\r\n]")

_COMMENT = b": unbroken\n"

_NO_RETRY = (b"x-should-retry", b"false")
"""Keeps OpenAI's and Anthropic's SDKs from retrying: the relay has already retried."""

_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Reply:
    """The response to the client of one turn.

    Until it has begun, a failure is sent as a status. It begins with the first response that an attempt hands on, or
    before that with a heartbeat: then status and headers are the relay's own, and a failure is sent as an event.

    Args:
        send: ASGI's ``send``.
        dialect: the turn's dialect, for its heartbeat and the format of its errors.
        turn_id: the turn's id in headers and logs.
        streaming: whether the client asked for events.
        extra: fields that are added to the response.
        cut_by_break: whether, after a cut behind output, the connection is only closed, without an error event before.
        writer: writes without waiting; ``None`` where the server offers only ``send``.
        clock: monotonic seconds.

    Attributes:
        begun: whether status and headers have been sent.
        sent_at: when the last bytes were sent, on the clock.
        status: the HTTP status that was sent, ``None`` before.
        bytes: how many bytes of the body were sent.
        heartbeats: how many heartbeats were sent.
    """

    def __init__(
        self,
        send: asgi.Send,
        dialect: Dialect,
        turn_id: str,
        *,
        streaming: bool,
        extra: Headers = (),
        cut_by_break: bool = False,
        writer: asgi.Writer | None = None,
        clock: Callable[[], float],
    ) -> None:
        self.status: int | None = None
        self.sent_at = clock()
        self.bytes = 0
        self.heartbeats = 0
        self._send = send
        self._dialect = dialect
        self._id = turn_id
        self._streaming = streaming
        self._extra = extra
        self._cut_by_break = cut_by_break
        self._writer = writer
        self._clock = clock
        self._unfinished = bytearray()
        self._inside = False
        self._spoken = False
        self._own_head = False
        self._over = False
        self._has_ids = False
        self._lacks_blank_lines = False
        self._line_at = 0  # in the unfinished event: where the line begins that has not been looked at
        self._event_end = 0  # and where its last line that is an event by itself ends
        self._share = _SHARE
        self._lock = anyio.Lock(fast_acquire=True)

    @property
    def begun(self) -> bool:
        """Whether status and headers have been sent."""
        return self.status is not None

    @property
    def busy(self) -> bool:
        """Whether bytes are being sent now; they may be waiting for the client to read."""
        return self._lock.locked()

    @property
    def pours(self) -> bool:
        """Whether :meth:`pour` may ever take bytes."""
        return self._writer is not None

    @property
    def takes_heartbeats(self) -> bool:
        """Whether heartbeats can be sent: this is a stream, and its dialect has one."""
        return self._streaming and bool(self._dialect.heartbeat)

    @property
    def has_spoken(self) -> bool:
        """Whether more than heartbeats was sent."""
        return self._spoken

    def suits(self, head: Head, *, is_stream: bool) -> bool:
        """Return whether a response with this head can be handed on: after a heartbeat only a stream of events."""
        return not self._own_head or (head.status == 200 and is_stream)

    async def begin(self, head: Head, report: Report, *, is_stream: bool) -> None:
        """Hand on status and headers, with the report, unless a heartbeat has begun the reply.

        Args:
            head: the head.
            report: the report so far.
            is_stream: whether events follow, as the driver says: the media type may say something else.
        """
        async with self._lock:
            if self.begun:
                return
            self._streaming = self._streaming and is_stream
            passed_on = headers.downwards(head, stream=self._streaming)
            retried = head.status >= 400 and report.lost and "x-should-retry" not in head.fields
            final = (_NO_RETRY,) if retried else ()
            fields = [*passed_on, *headers.report_headers(self._id, report), *final, *self._extra]
            await asgi.start(self._send, head.status, fields)
            self.status, self.sent_at = head.status, self._clock()

    async def hand_on(self, data: bytes) -> None:
        """Hand on bytes of the body. An event is held until it is whole: an error must not follow half of one."""
        async with self._lock:
            if ready := self._ready(data):
                await self._put(ready)
        self._share -= len(data)
        if self._share <= 0:
            self._share = _SHARE
            await anyio.lowlevel.checkpoint()

    def pour(self, data: bytes) -> bool:
        """Hand on bytes of the body as :meth:`hand_on`, but now, between two tasks.

        Returns:
            False, and nothing is taken, if that would have to wait: for the client, or for a heartbeat on its way.
        """
        writer = self._writer
        if writer is None or not writer.ready or self._lock.locked():
            return False
        if ready := self._ready(data):
            writer.write(ready)
            self._count(ready)
        return True

    async def heartbeat(self) -> None:
        """Send a heartbeat, if that is possible here: not in the middle of an event."""
        async with self._lock:
            if self._over or not self.takes_heartbeats:
                return
            if self._inside:
                self.sent_at = self._clock()  # try again later
                return
            if not self.begun:
                self._own_head = True
                fields = [*_EVENT_STREAM, (b"x-unbroken-turn", self._id.encode()), *self._extra]
                await asgi.start(self._send, 200, fields)
                self.status = 200
            await self._put(self._heartbeat)
            self.heartbeats += 1

    async def end(self) -> None:
        """End the response: the answer is whole."""
        async with self._lock:
            self._over = True
            if self._unfinished:
                await self._put(bytes(self._unfinished))
            await asgi.body(self._send, b"", more=False)

    async def fail(self, error: GatewayError, report: Report, fields: Headers = ()) -> None:
        """Report a failure: by a status if nothing was sent yet, else by an event, unless the break alone tells it.

        Args:
            error: the failure.
            report: the report of the turn.
            fields: more for the headers, if these are still to be sent.

        Raises:
            Broken: part of the response was sent already: the connection must be closed.
        """
        async with self._lock:
            self._over = True
            if not self.begun:
                await self._refuse(error, report, fields)
                return
            if self._streaming and not (self._cut_by_break and self._spoken and error.code == StreamCut.code):
                # A blank line ends an unfinished event: a reader must not take the error for its next line.
                await self._put((b"\n\n" if self._inside else b"") + self._dialect.error_event(error))
        raise asgi.Broken

    async def _refuse(self, error: GatewayError, report: Report, more: Headers) -> None:
        body = self._dialect.error_body(error)
        self.status, self.bytes = error.status, len(body)
        final = () if error.retryable else (_NO_RETRY,)
        fields = (*headers.report_headers(self._id, report), *final, *more, *self._extra)
        await asgi.answer(self._send, error.status, body, headers=fields)

    @property
    def _heartbeat(self) -> bytes:
        """The dialect's heartbeat, or a comment line without a blank line where the client would misread that.

        Decoders that keep the last id (openai's ``SSEDecoder``) dispatch an event without data at each blank line, and
        in a stream without blank lines the first one makes a single event of all lines before it.
        """
        heartbeat = self._dialect.heartbeat
        if self._lacks_blank_lines:
            return _COMMENT
        return heartbeat.rstrip() + b"\n" if self._has_ids and heartbeat.startswith(b":") else heartbeat

    def _ready(self, data: bytes) -> bytes:
        """Take bytes of the body; return those that may be sent now."""
        ready = self._up_to_event(data) if self._streaming else data
        if ready and not self._spoken:
            self._spoken = True
            ready = ready.removeprefix(_BOM) if self.bytes else ready
        self._has_ids = self._has_ids or _has_id(ready)
        return ready

    def _up_to_event(self, data: bytes) -> bytes:
        """Return the bytes that may be handed on now: all up to the end of the last event."""
        unfinished = self._unfinished
        if not unfinished and data.endswith(_BLANK_LINES):
            return data
        searched = max(0, len(unfinished) - _OVERLAP)
        unfinished += data
        found = ((unfinished.rfind(blank, searched), len(blank)) for blank in _BLANK_LINES)
        end = max((at + length for at, length in found if at >= 0), default=0)
        end = self._end_without_blank_line(end, searched)
        if end:
            self._inside = False
        if len(unfinished) - end > _MAX_HELD:
            self._inside, end = True, len(unfinished) - _OVERLAP
        ready = bytes(unfinished[:end])
        del unfinished[:end]
        self._line_at, self._event_end = max(0, self._line_at - end), max(0, self._event_end - end)
        return ready

    def _end_without_blank_line(self, end: int, searched: int) -> int:
        """Return where the last event ends: at ``end``, or behind a later line, where blank lines are missing.

        They are once a ``data`` line follows one that is an event by itself. Each line is looked at once.
        """
        unfinished = self._unfinished
        if end:
            self._line_at, self._event_end = max(self._line_at, end), 0
        since = max(self._line_at, searched)
        stop = max(unfinished.rfind(b"\n", since), unfinished.rfind(b"\r", since)) + 1
        for line in bytes(unfinished[self._line_at : stop]).splitlines(keepends=True):
            self._note_data_line()
            self._line_at += len(line)
            if is_whole_event(line):
                self._event_end = self._line_at
        self._note_data_line()
        return self._event_end if self._lacks_blank_lines and self._event_end else end

    def _note_data_line(self) -> None:
        """Note that blank lines are missing, if the present line is a ``data`` line behind an event."""
        if self._event_end and self._unfinished.startswith(b"data:", self._line_at):
            self._lacks_blank_lines = True

    async def _put(self, data: bytes) -> None:
        await asgi.body(self._send, data)
        self._count(data)

    def _count(self, data: bytes) -> None:
        self.bytes += len(data)
        self.sent_at = self._clock()


def are_heartbeats(dialect: Dialect, body: bytes) -> bool:
    """Return whether a body that a reply has begun is nothing but heartbeats."""
    for heartbeat in (dialect.heartbeat, dialect.heartbeat.rstrip() + b"\n", _COMMENT):
        body = body.replace(heartbeat, b"") if heartbeat.strip() else body
    return not body


def _has_id(events: bytes) -> bool:
    """Return whether events have the field ``id``. Most have no line that begins like it, which is found out fast."""
    may_have = events.startswith(b"id") or b"\nid" in events or b"\rid" in events
    return may_have and _ID_FIELD.search(events) is not None
