"""Servers that send without end, and nothing of a response: informational responses, control frames, empty frames."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from unbroken.core.failures import Failure
from wire.servers import RawServer, Script, read_head
from wire.sides import PATIENT, Side, chat, failure_of

SETTINGS, PING, DATA, WINDOW_UPDATE, PRIORITY = 4, 6, 0, 8, 2
STREAM = 1


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


HEADERS_200 = frame(1, b"\x88", flags=0x4, stream=STREAM)  # :status 200 (RFC 7541, appendix A), END_HEADERS

FLOODS = {
    "PING": frame(PING, b"12345678"),
    "SETTINGS": frame(SETTINGS),
    "empty DATA": frame(DATA, stream=STREAM),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, struct.pack(">I", 1)),
    "PRIORITY": frame(PRIORITY, bytes(5), stream=STREAM),
    "unknown frames": frame(0x42, b"x", stream=STREAM),
}


def sending_for_ever(first: bytes, repeated: bytes) -> Script:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(first)
        try:
            for _ in itertools.repeat(None):
                sock.sendall(repeated * 100)
        except OSError:
            return

    return script


@pytest.fixture
def flooding(request: pytest.FixtureRequest, server_tls: ssl.SSLContext) -> Iterator[RawServer]:
    server_tls.set_alpn_protocols(["h2"])
    with RawServer(sending_for_ever(frame(SETTINGS) + HEADERS_200, FLOODS[request.param]), server_tls) as server:
        yield server


@pytest.mark.parametrize("flooding", FLOODS, indirect=True)
def test_control_frames_without_end_are_broken_framing(
    side: Side, flooding: RawServer, client_tls: ssl.SSLContext
) -> None:
    with side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(flooding.url))

        def play() -> None:
            talk.send(PATIENT)
            talk.read_all(PATIENT)

        failure, _ = failure_of(play)
    assert failure is Failure.BROKEN_FRAMING


def test_informational_responses_without_end_are_broken_framing(side: Side) -> None:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        try:
            for _ in itertools.repeat(None):
                sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: <https://x.example>\r\n\r\n" * 100)
        except OSError:
            return

    with RawServer(script) as server, side.wire() as exchange:
        talk = exchange(chat(server.url))
        failure, _ = failure_of(talk.send, PATIENT)
    assert failure is Failure.BROKEN_FRAMING


def test_some_of_them_are_no_failure(side: Side) -> None:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: <https://x.example>\r\n\r\n" * 20
        sock.sendall(hints + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with RawServer(script) as server, side.wire() as exchange:
        talk = exchange(chat(server.url))
        assert talk.send(PATIENT).status == 200
        assert talk.read_all(PATIENT) == b"ok"
