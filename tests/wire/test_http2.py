"""What is accepted of a response over HTTP/2 and what is refused: the table; GOAWAY, PING, windows, early answers."""

from __future__ import annotations

import struct
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import WireError
from unbroken.wire.http2 import PING_DATA, WINDOW, GoAway, Http2, error_name
from unbroken.wire.mapping import wire_error
from unbroken.wire.requests import Destination, request_head

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def goaway(last_stream: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, struct.pack(">II", last_stream, code) + debug)


def fields(*pairs: tuple[str, str], status: str = "200") -> bytes:
    return hpack.Encoder().encode([(":status", status), *pairs])


def headers(*pairs: tuple[str, str], status: str = "200", end: bool = False) -> bytes:
    return frame(HEADERS, fields(*pairs, status=status), END_HEADERS | end * END_STREAM, 1)


def data(payload: bytes = b"ok", *, end: bool = False) -> bytes:
    return frame(DATA, payload, end * END_STREAM, 1)


BLOCK = fields(("x", "1"))
REFUSED_STREAM, NO_ERROR, CANCEL, CALM = 0x7, 0x0, 0x8, 0xB


def asked(request: Request | None = None) -> Http2:
    """A connection on which a request was sent, and the server's settings have come."""
    http = Http2()
    request = request or Request("GET", "https://test/")
    http.receive(frame(SETTINGS))
    http.send_request(request_head(request, Destination.of(request, None)))
    http.data_to_send()
    return http


def failure_of(http: Http2, came: bytes) -> Failure:
    try:
        http.receive(came)
    except Exception as exc:  # noqa: BLE001
        return wire_error(exc, sent=True, proxied=False).failure
    raise AssertionError("no failure")


ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    # name: what comes, the body
    "a body": (headers() + data(b"o") + data(b"k", end=True), b"ok"),
    "no body": (headers(end=True), b""),
    "a body that ends with an empty frame": (headers() + data() + data(b"", end=True), b"ok"),
    "padding": (headers() + frame(DATA, b"\x03ok\0\0\0", PADDED | END_STREAM, 1), b"ok"),
    "informational": (headers(status="103") + headers() + data(end=True), b"ok"),
    "trailers": (
        headers() + data() + frame(HEADERS, hpack.Encoder().encode([("x", "1")]), END_HEADERS | END_STREAM, 1), b"ok"
    ),
    "a head in two frames": (
        frame(HEADERS, BLOCK[:2], 0, 1) + frame(CONTINUATION, BLOCK[2:], END_HEADERS, 1) + data(end=True), b"ok"
    ),
    "its length": (headers(("content-length", "2")) + data(end=True), b"ok"),
    "frames that nobody knows": (frame(0x42, b"x") + headers() + frame(0x42, b"x", 0, 1) + data(end=True), b"ok"),
    "other frames between": (
        headers() + frame(PING, b"12345678") + frame(WINDOW_UPDATE, b"\0\0\0\1") + data() + data(b"", end=True), b"ok"
    ),
    "RST_STREAM NO_ERROR after the end": (  # RFC 9113, section 8.1
        headers() + data(end=True) + frame(RST_STREAM, struct.pack(">I", NO_ERROR), 0, 1), b"ok"
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[bytes, Failure]] = {
    # name: what comes, what it is called
    "short of its length": (headers(("content-length", "3")) + data(end=True), Failure.TRUNCATED),
    "longer than its length": (headers(("content-length", "1")) + data(), Failure.TRUNCATED),
    "two lengths": (
        headers(("content-length", "1"), ("content-length", "2")) + data(end=True), Failure.BROKEN_FRAMING
    ),
    "a length that is none": (headers(("content-length", "two")), Failure.BROKEN_FRAMING),
    "a body before its head": (data(), Failure.BROKEN_FRAMING),
    "no status": (frame(HEADERS, hpack.Encoder().encode([("x", "1")]), END_HEADERS, 1), Failure.BROKEN_FRAMING),
    "a name in upper case": (headers(("X", "1")), Failure.BROKEN_FRAMING),
    "a field of HTTP/1.1's connection": (headers(("connection", "close")), Failure.BROKEN_FRAMING),
    "headers that cannot be unpacked": (frame(HEADERS, b"\xff\xff\xff", END_HEADERS, 1), Failure.BROKEN_FRAMING),
    "a frame that is too long": (frame(DATA, bytes(16385), 0, 1), Failure.BROKEN_FRAMING),
    "HTTP/1.1": (b"HTTP/1.1 400 Bad Request\r\n\r\n", Failure.BROKEN_FRAMING),
    "a push": (frame(PUSH_PROMISE, struct.pack(">I", 2) + BLOCK, END_HEADERS, 1), Failure.BROKEN_FRAMING),
    "a frame between HEADERS and CONTINUATION": (frame(HEADERS, BLOCK, 0, 1) + data(), Failure.BROKEN_FRAMING),
    "a body between HEADERS and CONTINUATION of trailers": (
        headers() + data() + frame(HEADERS, fields(("x", "1")), END_STREAM, 1) + data(), Failure.BROKEN_FRAMING
    ),
    "a body of another stream": (headers() + frame(DATA, b"ok", 0, 3), Failure.BROKEN_FRAMING),
    "more than the window": (headers() + data(bytes(16384)) * 65, Failure.BROKEN_FRAMING),
    "a reset": (headers() + frame(RST_STREAM, struct.pack(">I", CANCEL), 0, 1), Failure.STREAM_RESET),
    "a reset, NO_ERROR": (headers() + frame(RST_STREAM, struct.pack(">I", NO_ERROR), 0, 1), Failure.STREAM_RESET),
    "a refusal": (frame(RST_STREAM, struct.pack(">I", REFUSED_STREAM), 0, 1), Failure.NOT_PROCESSED),
    "GOAWAY that leaves us out": (goaway(0), Failure.NOT_PROCESSED),
    "a short GOAWAY": (frame(GOAWAY, b"short"), Failure.BROKEN_FRAMING),
}  # fmt: skip


@pytest.mark.parametrize(("came", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(came: bytes, body: bytes) -> None:
    http = asked()
    http.receive(came)
    assert http.head is not None
    assert (http.head.status, http.ended, http.take(), http.reusable) == (200, True, body, True)


@pytest.mark.parametrize(("came", "failure"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(came: bytes, failure: Failure) -> None:
    http = asked()
    assert failure_of(http, came) is failure
    assert not http.reusable


def test_what_came_before_a_failure_can_be_taken() -> None:
    http = asked()
    assert failure_of(http, headers() + data() + goaway(0)) is Failure.NOT_PROCESSED
    assert http.head is not None
    assert http.take() == b"ok"


def test_an_end_of_the_connection_is_no_end_of_the_response() -> None:
    http = asked()
    http.receive(headers() + data())
    with pytest.raises(WireError) as caught:
        http.receive_eof()
    assert caught.value.failure is Failure.CLOSED


# GOAWAY


def test_a_stream_that_a_graceful_goaway_covers_goes_on() -> None:
    """A graceful shutdown begins with the highest number there is (RFC 9113, section 6.8)."""
    http = asked()
    http.receive(goaway(2**31 - 1) + headers() + goaway(1) + data() + frame(PING, b"12345678"))
    http.receive(data(b"!", end=True))
    assert (http.take(), http.ended, http.reusable) == (b"ok!", True, False)
    assert http.goaway == GoAway(1, "NO_ERROR")
    assert frame(PING, b"12345678", ACK) in http.data_to_send()


def test_the_reserved_bit_is_no_part_of_the_stream_s_number() -> None:
    http = asked()
    http.receive(goaway(1 | 0x80000000))
    assert http.goaway == GoAway(1, "NO_ERROR")


def test_after_a_goaway_no_stream_is_opened() -> None:
    http = Http2()
    http.receive(frame(SETTINGS) + goaway(0))
    request = Request("GET", "https://test/")
    with pytest.raises(WireError) as caught:
        http.send_request(request_head(request, Destination.of(request, None)))
    assert caught.value.failure is Failure.NOT_PROCESSED


@pytest.mark.parametrize(
    ("pings", "code", "failure"),
    [(1, CALM, Failure.TOO_MANY_PINGS), (0, CALM, Failure.NOT_PROCESSED), (1, NO_ERROR, Failure.NOT_PROCESSED)],
)
def test_calm_is_about_ping_where_ping_was_sent(pings: int, code: int, failure: Failure) -> None:
    http = asked()
    for _ in range(pings):
        http.ping()
    assert failure_of(http, goaway(0, code)) is failure
    assert http.asks_for_calm == (failure is Failure.TOO_MANY_PINGS)


# PING


def test_our_pings_are_counted_when_they_are_answered_and_theirs_are_answered() -> None:
    http = asked()
    http.ping()
    assert http.data_to_send() == frame(PING, PING_DATA)
    http.receive(frame(PING, b"theirs!!"))
    assert (http.pongs, http.data_to_send()) == (0, frame(PING, b"theirs!!", ACK))
    http.receive(frame(PING, PING_DATA, ACK) + frame(PING, b"not ours", ACK))
    assert http.pongs == 1


@pytest.mark.parametrize(
    ("came", "responding", "idle"),
    [
        (headers() + data(), 2, 0),
        (headers() + data(b""), 2, 1),
        (frame(PING, PING_DATA, ACK), 0, 1),
        (frame(SETTINGS), 0, 1),
        (frame(WINDOW_UPDATE, b"\0\0\0\1"), 1, 1),
        (frame(0x42, b"x"), 1, 1),
    ],
)
def test_frames_are_told_apart(came: bytes, responding: int, idle: int) -> None:
    http = asked()
    before = http.responding, http.idle_frames
    http.receive(came)
    assert (http.responding - before[0], http.idle_frames - before[1]) == (responding, idle)


# Windows, as a server sees them


class Server:
    """The other side, by h2."""

    def __init__(self, http: Http2, window: int = 65535) -> None:
        self._http = http
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.h2.initiate_connection()
        self.events: list[Any] = []

    def talk(self) -> None:
        """Let both sides send until neither has more."""
        while True:
            asked, answered = bytes(self._http.data_to_send()), self.h2.data_to_send()
            if not asked and not answered:
                return
            self.events += self.h2.receive_data(asked)
            self._http.receive(answered)

    @property
    def body(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, h2.events.DataReceived))


def upload(body: bytes) -> tuple[Http2, Server]:
    http = Http2()
    server = Server(http)
    server.talk()
    request = Request("POST", "https://test/", body=body)
    http.send_request(request_head(request, Destination.of(request, None)))
    server.talk()
    return http, server


def test_room_for_a_request_is_not_idle() -> None:
    """haproxy gives it in small pieces: hundreds of frames for an upload of a few MB."""
    http, _ = upload(bytes(1_000_000))
    before = http.idle_frames
    http.receive(frame(WINDOW_UPDATE, b"\0\0\0\1") * 10)
    assert http.idle_frames == before


def test_a_request_waits_for_room_and_goes_on_with_it() -> None:
    body = bytes(range(256)) * 1000
    http, server = upload(body)
    while http.waits_for_room:
        before = len(server.body)
        assert before < len(body)
        server.h2.acknowledge_received_data(65535, 1)
        server.talk()
        assert len(server.body) > before
    assert server.body == body
    assert any(isinstance(event, h2.events.StreamEnded) for event in server.events)


def test_an_early_answer_ends_the_request() -> None:
    http, server = upload(bytes(1_000_000))
    server.h2.send_headers(1, [(":status", "413")], end_stream=True)
    server.talk()
    assert http.head is not None
    assert (http.head.status, http.ended, http.waits_for_room, http.reusable) == (413, True, False, False)
    assert isinstance(server.events[-1], h2.events.StreamReset)


def test_a_server_sends_as_much_as_the_window_holds_until_it_is_taken() -> None:
    http, server = upload(b"")
    server.h2.send_headers(1, [(":status", "200")])
    server.talk()
    sent = 0
    while room := min(server.h2.local_flow_control_window(1), 16384):
        server.h2.send_data(1, bytes(room))
        sent += room
        server.talk()
    assert sent == WINDOW
    assert len(http.take()) == WINDOW
    server.talk()
    assert server.h2.local_flow_control_window(1) >= WINDOW // 2


def test_what_was_taken_makes_room_on_the_connection_for_the_next_exchange() -> None:
    http, server = upload(b"")
    for stream in range(1, 40, 2):
        server.h2.send_headers(stream, [(":status", "200")])
        for _ in range(10):
            server.h2.send_data(stream, bytes(16384))
        server.h2.end_stream(stream)
        server.talk()
        assert len(http.take()) == 163840
        assert http.reusable
        request = Request("GET", "https://test/")
        http.send_request(request_head(request, Destination.of(request, None)))
        server.talk()


def test_error_codes_that_nobody_knows_are_told_as_numbers() -> None:
    assert (error_name(0x8), error_name(0x99)) == ("CANCEL", "0x99")


pieces = st.lists(
    st.one_of(
        st.builds(data, st.binary(max_size=40)),
        st.just(frame(PING, PING_DATA, ACK)),
        st.just(goaway(1)),
        st.just(frame(SETTINGS)),
    ),
    max_size=8,
)


@given(pieces, st.data())
def test_however_the_bytes_are_cut_the_same_is_seen(frames: list[bytes], draw: st.DataObject) -> None:
    stream = headers() + b"".join(frames)
    whole, cut = asked(), asked()
    rest = stream
    while rest:
        size = draw.draw(st.integers(1, len(rest)))
        cut.receive(rest[:size])
        rest = rest[size:]
    whole.receive(stream)
    assert cut.take() == whole.take()
    assert (cut.pongs, cut.goaway, cut.idle_frames) == (whole.pongs, whole.goaway, whole.idle_frames)
