"""HTTP/2 (RFC 9113), the client's side of one connection that carries one stream at a time, without I/O.

The h2 library does it. It is given one frame at a time, so that what came before a failure is handed on, and it is
not given two kinds of frames. A GOAWAY: it treats a graceful one as the end of the connection, although a stream that
it covers goes on (section 6.8). And a DATA frame in the middle of a body, which is nothing but bytes and room in two
windows: it takes h2 longer than all the rest of an event's way, as it formats each frame for a log.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from unbroken.core.failures import Failure
from unbroken.core.http import Head
from unbroken.errors import WireError
from unbroken.wire.requests import RequestHead

CHUNK = 64 * 1024
"""Bytes of a request's body that are framed at a time."""

WINDOW = 1024 * 1024
"""Bytes that a server may send before the caller has taken any."""

MAX_HEADERS = 256 * 1024
"""Bytes of a response's header fields."""

PING_DATA = b"unbroken"
"""The eight bytes that the PINGs sent here carry."""

_HEADER = 9
_MAX_FRAME = 16 * 1024
_END_HEADERS = 0x4
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8, 0x9
_LAST_STREAM = 2**31 - 1
_RESERVED = 0x80000000
_CALM = "ENHANCE_YOUR_CALM"

_CONNECTION_FIELDS = (b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
"""Fields of HTTP/1.1's connections (section 8.2.2), and ``Host``, which is ``:authority`` here."""

_SETTINGS_SENT = {
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
    h2.settings.SettingCodes.MAX_FRAME_SIZE: _MAX_FRAME,
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
}


class GoAway(NamedTuple):
    """A GOAWAY frame: the server takes no further streams.

    Attributes:
        last_stream: the highest stream that the server has processed or will.
        error: name of the error code; ``NO_ERROR`` for a graceful shutdown.
    """

    last_stream: int
    error: str


class Http2:
    """One connection, which serves one exchange after another.

    Attributes:
        head: status and headers of the response, once they have come.
        ended: whether the response is complete.
        goaway: the last GOAWAY, if one came.
        pongs: how many PINGs sent here have been answered.
        responding: how many frames of a response have come, or room for the request.
        response_bytes: bytes of bodies that have come, and one for each head: neither PING nor a frame that only ends.
        idle_frames: how many frames came that carry nothing of a response, nor room for the request: PING, SETTINGS,
            empty DATA and their like.
    """

    version: Literal["HTTP/2"] = "HTTP/2"

    def __init__(self) -> None:
        self.head: Head | None = None
        self.ended = False
        self.goaway: GoAway | None = None
        self.pongs = 0
        self.responding = 0
        self.response_bytes = 0
        self.idle_frames = 0
        self._pings = 0
        self._stream = -1
        self._body: list[bytes] = []
        self._untaken = 0
        self._unknown_to_h2 = 0  # of these, bytes of frames that it was not given
        self._room = b""
        self._reads_bodies = self._in_headers = False
        self._upload = memoryview(b"")
        self._uploading = False
        self._incoming = bytearray()
        self._broken = False
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=_SETTINGS_SENT)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW - self._h2.inbound_flow_control_window)

    # The request

    def send_request(self, request: RequestHead) -> None:
        """Open a stream, with the body if that is in memory.

        Raises:
            WireError: ``NOT_PROCESSED``: the server takes no further streams.
        """
        if self.goaway:
            raise WireError(Failure.NOT_PROCESSED, f"GOAWAY {self.goaway.error}")
        if self._untaken:
            self._make_room()
        self.head, self.ended, self._reads_bodies = None, False, False
        self._stream = self._h2.get_next_available_stream_id()
        host = next(value for name, value in request.fields if name.lower() == b"host")
        fields = [
            (b":method", request.method.encode()),
            (b":authority", host),
            (b":scheme", request.scheme.encode()),
            (b":path", request.target.encode()),
            *((name.lower(), value) for name, value in request.fields if name.lower() not in _CONNECTION_FIELDS),
        ]
        self._uploading, self._upload = request.streamed, memoryview(request.body)
        has_body = request.streamed or bool(request.body)
        self._h2.send_headers(self._stream, fields, end_stream=not has_body)

    def send_body(self, data: bytes) -> None:
        """Write a piece of a streamed body, once the piece before it has gone."""
        assert not self._upload, "one piece at a time"
        self._upload = memoryview(data)

    def end_body(self) -> None:
        """Write the end of a streamed body."""
        self._uploading = False
        if not self.ended and not self._upload:
            self._h2.end_stream(self._stream)

    @property
    def waits_for_room(self) -> bool:
        """Whether the rest of the request waits for the server (section 5.2)."""
        return bool(self._upload) and not self.ended

    @property
    def _uploads(self) -> bool:
        """Whether a part of the request is still to be framed."""
        return bool(self._upload) or self._uploading

    def ping(self) -> None:
        """Write a PING (section 6.7)."""
        self._pings += 1
        self._h2.ping(PING_DATA)

    def data_to_send(self) -> bytes:
        """Return the next bytes for the network, or ``b""``."""
        if self._upload and not self.ended:
            self._frame_upload()
        room, self._room = self._room, b""
        return self._h2.data_to_send() + room

    def _frame_upload(self) -> None:
        size = 0
        while self._upload and size < CHUNK:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            piece, self._upload = self._upload[:room], self._upload[room:]
            last = not self._upload and not self._uploading
            self._h2.send_data(self._stream, bytes(piece), end_stream=last)
            size += len(piece)

    # The response

    def receive(self, data: bytes) -> None:
        """Read bytes of the connection.

        Raises:
            WireError: the stream or the connection failed; what came before that can still be taken.
            h2.exceptions.ProtocolError: the server breaks HTTP/2.
        """
        incoming = self._incoming
        if incoming:
            incoming += data
        frames = incoming or data  # mostly whole frames come, and are not copied once more
        start, end = 0, len(frames)
        try:
            while end - start >= _HEADER:
                size = _HEADER + int.from_bytes(frames[start : start + 3], "big")
                if size > _HEADER + _MAX_FRAME:
                    raise WireError(Failure.BROKEN_FRAMING, "a frame is too long")
                if end - start < size:
                    break
                start += size
                self._receive_frame(bytes(frames[start - size : start]))
        except Exception:
            self._broken = True
            raise
        finally:
            if frames is incoming:
                del incoming[:start]
            elif start < end:
                incoming += data[start:]

    def receive_eof(self) -> None:
        """Read the end of the connection.

        Raises:
            WireError: ``CLOSED``: the response is not complete.
        """
        self._broken = True
        if not self.ended:
            raise WireError(Failure.CLOSED)

    def take(self) -> bytes:
        """Return the bytes of the body that have come since the last call, and make room for more."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        if self._untaken >= WINDOW // 4 or self.ended:
            self._make_room()
        return data

    @property
    def reusable(self) -> bool:
        """Whether the connection can serve another exchange."""
        busy = self._uploads or self._incoming
        return self.ended and not (busy or self._broken or self.goaway) and self._stream < _LAST_STREAM - 2

    @property
    def asks_for_calm(self) -> bool:
        """Whether the server has had too many PINGs. There is no other sign of that than ENHANCE_YOUR_CALM."""
        return self._pings > 0 and self.goaway is not None and self.goaway.error == _CALM

    def _make_room(self) -> None:
        """Let the server send as many bytes again as have been taken (section 6.9)."""
        if known := self._untaken - self._unknown_to_h2:
            self._h2.acknowledge_received_data(known, self._stream)
        if self._unknown_to_h2:
            for stream in (0,) if self.ended else (0, self._stream):
                self._room += _window_update(stream, self._unknown_to_h2)
        self._untaken = self._unknown_to_h2 = 0

    def _receive_frame(self, frame: bytes) -> None:
        kind = frame[3]
        if kind == _DATA and self._is_of_a_body(frame):
            self._receive_body(frame[_HEADER:])
            return
        if len(frame) == _HEADER or kind not in (_DATA, _HEADERS, _CONTINUATION):
            self.idle_frames += not (kind == _WINDOW_UPDATE and self._uploads)
        if kind not in (_SETTINGS, _PING, _GOAWAY):
            self.responding += 1
        if kind == _GOAWAY and len(frame) >= _HEADER + 8:
            self._receive_goaway(frame[_HEADER:])
            return
        if kind in (_HEADERS, _CONTINUATION):
            self._in_headers = not frame[4] & _END_HEADERS
        for event in self._h2.receive_data(frame):
            self._react(event)

    def _is_of_a_body(self, frame: bytes) -> bool:
        """Return whether a DATA frame is from the middle of a body: of this stream, not its last one, not padded."""
        no_flags = not frame[4] and len(frame) > _HEADER
        of_stream = int.from_bytes(frame[5:_HEADER], "big") & ~_RESERVED == self._stream
        return no_flags and of_stream and self._reads_bodies and not (self.ended or self._in_headers)

    def _receive_body(self, data: bytes) -> None:
        self.responding += 1
        self.response_bytes += len(data)
        self._untaken += len(data)
        self._unknown_to_h2 += len(data)
        if self._untaken > WINDOW:
            raise WireError(Failure.BROKEN_FRAMING, "more came than the window allows")
        self._body.append(data)

    def _receive_goaway(self, payload: bytes) -> None:
        last_stream = int.from_bytes(payload[:4], "big") & ~_RESERVED
        self.goaway = GoAway(last_stream, error_name(int.from_bytes(payload[4:8], "big")))
        if last_stream < self._stream and not self.ended:
            failure = Failure.TOO_MANY_PINGS if self.asks_for_calm else Failure.NOT_PROCESSED
            raise WireError(failure, f"GOAWAY {self.goaway.error}")

    def _react(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._untaken += event.flow_controlled_length
                self.response_bytes += len(event.data or b"")
                if event.data and not self.ended:
                    self._body.append(event.data)
            case h2.events.ResponseReceived():
                fields = [(bytes(name), bytes(value)) for name, value in event.headers]
                status = next(value for name, value in fields if name == b":status")
                self.head = Head(int(status), tuple(field for field in fields if field[0] != b":status"), self.version)
                self._reads_bodies = "content-length" not in self.head.fields  # which h2 compares with what comes
                self.response_bytes += 1
            case h2.events.InformationalResponseReceived():
                self.response_bytes += 1
            case h2.events.StreamEnded():
                self._end()
            case h2.events.PingAckReceived():
                self.pongs += event.ping_data == PING_DATA
            case h2.events.StreamReset() if not self.ended:
                name = error_name(int(event.error_code or 0))
                refused = name == "REFUSED_STREAM"
                raise WireError(Failure.NOT_PROCESSED if refused else Failure.STREAM_RESET, name)

    def _end(self) -> None:
        """End the exchange; a request that the server has answered early is not sent to its end (section 8.1)."""
        self.ended = True
        if self._uploads:
            self._broken = True
            self._h2.reset_stream(self._stream, h2.errors.ErrorCodes.CANCEL)


def _window_update(stream: int, size: int) -> bytes:
    """Return a frame (section 6.9)."""
    return b"\x00\x00\x04%c\x00%b%b" % (_WINDOW_UPDATE, stream.to_bytes(4, "big"), size.to_bytes(4, "big"))


def error_name(code: int) -> str:
    """Return the name of an HTTP/2 error code (section 7)."""
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return f"0x{code:x}"
