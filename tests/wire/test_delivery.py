"""What is on the wire is delivered, the moment it is there and to its end."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import h2.events
import pytest

from unbroken.core.failures import Failure
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from wire.http2_server import Http2Peer, http2_server
from wire.servers import RawServer, saying
from wire.sides import Side, chat, failure_of

protocols = pytest.mark.parametrize(
    ("encrypted", "http2", "version"),
    [(False, False, "HTTP/1.1"), (True, False, "HTTP/1.1"), (True, True, "HTTP/2")],
    ids=["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2"],
)


@protocols
def test_an_event_is_delivered_before_the_next_one_is_sent(
    side: Side, encrypted: bool, http2: bool, version: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    tls = server_tls if encrypted else None
    with (
        Upstream(faults=[Fault("stall", "after_token")], ssl_context=tls, http2=http2) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        head = talk.send()
        assert (head.status, head.http_version) == (200, version)
        assert talk.read_until(b"Hello") == upstream.requests[0].sent
        assert not upstream.requests[0].done
        talk.close()


@protocols
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_body_is_delivered_whole(
    side: Side,
    encrypted: bool,
    http2: bool,
    version: str,
    framing: Any,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    tls = server_tls if encrypted else None
    with (
        Upstream(
            answer=ScriptedAnswer(text=["word " * 2000] * 100, framing=framing), ssl_context=tls, http2=http2
        ) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        talk.send()
        body = talk.read_all()
        assert len(body) > 1_000_000
        assert body == upstream.requests[0].sent
        assert talk.path.received >= len(body)
        assert talk.read() == b""


def test_large_request_bodies_arrive_whole(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    body = b'{"stream": true, "padding": "%b"}' % (b"x" * 3_000_000)
    for http2 in (False, True):
        with Upstream(ssl_context=server_tls, http2=http2) as upstream, side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url, body))
            assert talk.send().status == 200
            assert upstream.requests[0].body == body
            assert upstream.requests[0].header("content-length") == str(len(body))
            talk.close()


def test_headers_keep_their_order_and_their_case(side: Side) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-First: 1\r\nx-second: 2\r\nX-First: 3\r\ncontent-length: 0\r\n\r\n"
    with RawServer(saying(answer)) as server, side.wire() as exchange:
        head = exchange(chat(server.url)).send()
    assert head.headers[:3] == ((b"X-First", b"1"), (b"x-second", b"2"), (b"X-First", b"3"))


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [(b"HTTP/1.1 413 Too large\r\ncontent-length: 7\r\n", 413), (b"HTTP/1.0 401 Who?\r\n", 401)],
    ids=["with a length", "to the close"],
)
def test_an_early_answer_is_delivered_though_the_request_could_not_be_sent(
    side: Side, headers: bytes, status: int, encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """A server may refuse what it has not read yet, and close: the refusal is the news, not the reset after it."""

    def refuse(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(headers + b"\r\nrefused")

    server_tls.set_alpn_protocols(["http/1.1"])
    with RawServer(refuse, server_tls if encrypted else None) as server, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(server.url, bytes(20_000_000)))
        assert talk.send().status == status
        assert talk.read() == b"refused"


def test_an_early_answer_is_delivered_though_http2_has_no_room_for_the_request(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    def refuse(peer: Http2Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            peer.answer(b"refused", 413)

    with http2_server(refuse, server_tls) as server, side.wire(verify=client_tls) as exchange:
        for _ in range(2):
            talk = exchange(chat(server.url, bytes(20_000_000)))
            assert talk.send().status == 413
            assert talk.read_all() == b"refused"
        assert server.connections == 2


@pytest.mark.parametrize(
    ("after", "failure"),
    [(b"zz\r\n", Failure.BROKEN_FRAMING), (b"", Failure.TRUNCATED)],
    ids=["bad chunk", "end"],
)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_what_came_with_a_failure_is_handed_on_before_it(
    side: Side, after: bytes, failure: Failure, encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Though it all came in the same read."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n" + after)
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()

    server_tls.set_alpn_protocols(["http/1.1"])
    with RawServer(script, server_tls if encrypted else None) as server, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(server.url))
        assert talk.send().status == 200
        assert talk.read() == b"ok"
        assert failure_of(talk.read)[0] is failure


@protocols
def test_a_reader_that_pauses_makes_the_server_wait(
    side: Side, encrypted: bool, http2: bool, version: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Whatever is sent, no more than a few MB of it are held."""
    tls = server_tls if encrypted else None
    answer = ScriptedAnswer(text=["word " * 2000] * 3000)
    with Upstream(answer=answer, ssl_context=tls, http2=http2) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        talk.send()
        taken = talk.read()
        sent = -1
        while sent != len(upstream.requests[0].sent):  # until nothing moves any more
            sent = len(upstream.requests[0].sent)
            upstream.wait_for(lambda sent=sent: len(upstream.requests[0].sent) != sent, timeout=0.3)
        assert sent < 20_000_000
        assert taken + talk.read_all() == upstream.requests[0].sent
