"""A body of any size: sent as it comes, and never held."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from ports import free_port
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import WireError
from unbroken.lab import Upstream
from unbroken.wire.async_http import AsyncHttpExchange, AsyncHttpWire
from wire.servers import RawServer, read_head, silence
from wire.sides import PATIENT, TIMEOUT, Side, failure_of

pytestmark = pytest.mark.parametrize("side", ["asyncio", "uvloop", "trio"], indirect=True)
protocols = pytest.mark.parametrize("encrypted", [False, True], ids=["HTTP/1.1", "HTTP/2"])

Begin = Callable[[Request, AsyncIterator[bytes]], AsyncHttpExchange]


class Pieces:
    """A body in pieces, each of which may have to be waited for.

    Attributes:
        asked: how many were asked for.
        closed: whether the iteration has ended, by whatever means.
    """

    def __init__(self, *pieces: bytes | threading.Event | Exception) -> None:
        self.asked = 0
        self.closed = threading.Event()
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for piece in self._pieces:
                if isinstance(piece, threading.Event):
                    await anyio.to_thread.run_sync(piece.wait, TIMEOUT, abandon_on_cancel=True)
                elif isinstance(piece, Exception):
                    raise piece
                else:
                    self.asked += 1
                    yield piece
        finally:
            self.closed.set()


@contextmanager
def wire(side: Side, verify: Any = True) -> Iterator[Begin]:
    opened = AsyncHttpWire(environ={}, verify=verify)
    yield lambda request, content: opened.exchange(request, content=content)
    side.run(opened.aclose)


def send(side: Side, exchange: AsyncHttpExchange) -> int:
    """Send, and read the response to its end; its status."""

    async def talk() -> int:
        head = await exchange.send(PATIENT)
        while await exchange.read(PATIENT):
            pass
        return head.status

    return side.run(talk)


@protocols
@pytest.mark.parametrize(
    ("headers", "framed"),
    [
        ((), (None, "chunked")),
        (((b"Content-Length", b"6"),), ("6", None)),
        (((b"Transfer-Encoding", b"gzip"),), (None, "chunked")),
    ],
)
def test_it_is_framed_by_its_length_or_else_in_chunks(
    side: Side,
    encrypted: bool,
    headers: Any,
    framed: tuple[str | None, str | None],
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    with Upstream(ssl_context=server_tls if encrypted else None) as upstream, wire(side, client_tls) as begin:
        for _ in range(2):
            pieces = Pieces(b"abc", b"", b"def")
            assert send(side, begin(Request("PUT", f"{upstream.url}/files", headers), pieces)) == 404
            assert pieces.closed.is_set()
        assert [request.body for request in upstream.requests] == [b"abcdef"] * 2
        length, coding = framed
        assert upstream.requests[0].header("content-length") == length
        assert upstream.requests[0].header("transfer-encoding") == (None if encrypted else coding)
        assert upstream.connections == 1


@protocols
def test_it_may_be_empty(side: Side, encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with Upstream(ssl_context=server_tls if encrypted else None) as upstream, wire(side, client_tls) as begin:
        assert send(side, begin(Request("PUT", f"{upstream.url}/files"), Pieces())) == 404
        assert upstream.requests[0].body == b""


@protocols
def test_it_may_be_large(side: Side, encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Larger than the window of HTTP/2."""
    with Upstream(ssl_context=server_tls if encrypted else None) as upstream, wire(side, client_tls) as begin:
        piece = bytes(range(256)) * 400
        assert send(side, begin(Request("PUT", f"{upstream.url}/files"), Pieces(*[piece] * 20))) == 404
        assert upstream.requests[0].body == piece * 20


def test_it_goes_out_as_it_comes(side: Side) -> None:
    first, last = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        data = read_head(sock)
        while not data.endswith(b"3\r\nabc\r\n"):
            data += sock.recv(100)
        first.set()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(100)
        last.set()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        silence(sock)

    with RawServer(script) as server, wire(side) as begin:
        assert send(side, begin(Request("PUT", server.url), Pieces(b"abc", first, b"def"))) == 200
        assert last.is_set()


def test_it_is_not_asked_for_before_there_is_somebody_to_take_it(side: Side) -> None:
    with wire(side) as begin:
        pieces = Pieces(b"abc")
        exchange = begin(Request("PUT", f"http://127.0.0.1:{free_port()}"), pieces)
        assert failure_of(send, side, exchange)[0] is Failure.CONNECTION_REFUSED
        assert pieces.asked == 0


def test_nor_faster_than_it_is_taken(side: Side) -> None:
    taken = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        taken.wait(TIMEOUT)
        silence(sock)

    with RawServer(script) as server, wire(side) as begin:
        pieces = Pieces(*[b"a" * 1024 * 1024] * 100)
        exchange = begin(Request("PUT", server.url), pieces)
        pending = side.portal.start_task_soon(exchange.send, PATIENT)
        server.wait_until_connected()
        asked = -1
        while asked != pieces.asked:  # until nothing moves any more
            asked = pieces.asked
            pieces.closed.wait(0.2)
        assert 0 < asked < 50
        pending.cancel()
        taken.set()
        server.wait_until_gone()


@pytest.mark.parametrize("framing", [b"content-length: 2\r\n\r\nno", b"\r\nno"], ids=["at once", "to the close"])
def test_the_rest_is_not_asked_for_after_a_refusal(side: Side, framing: bytes) -> None:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Too large\r\n" + framing)
        sock.shutdown(socket.SHUT_WR)  # and no reset, which may overtake what was sent
        silence(sock)

    never = threading.Event()
    with RawServer(script) as server, wire(side) as begin:
        pieces = Pieces(b"abc", never, b"def")
        assert send(side, begin(Request("PUT", server.url), pieces)) == 413
        assert pieces.closed.is_set()
        assert pieces.asked == 1
    never.set()


def test_it_goes_on_after_an_answer_that_is_no_refusal(side: Side) -> None:
    seen = threading.Event()

    def script(sock: socket.socket) -> None:
        data = read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        seen.set()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(100)
        sock.sendall(b"all")

    with RawServer(script) as server, wire(side) as begin:
        assert send(side, begin(Request("PUT", server.url), Pieces(b"abc", seen, b"def"))) == 200


def test_it_is_given_up_with_the_exchange(side: Side) -> None:
    taken = threading.Event()

    def script(sock: socket.socket) -> None:
        data = read_head(sock)
        while b"abc" not in data:
            data += sock.recv(100)
        taken.set()
        silence(sock)

    with RawServer(script) as server, wire(side) as begin:
        pieces = Pieces(b"abc", threading.Event())
        exchange = begin(Request("PUT", server.url), pieces)
        pending = side.portal.start_task_soon(exchange.send, PATIENT)
        assert taken.wait(TIMEOUT)
        pending.cancel()
        server.wait_until_gone()
        assert pieces.closed.wait(TIMEOUT)


@pytest.mark.parametrize("pieces", [(b"abc", ValueError("mine")), (b"abc",)], ids=["an error", "too short"])
def test_what_breaks_off_is_no_request(side: Side, pieces: Any) -> None:
    with Upstream() as upstream, wire(side) as begin:
        request = Request("PUT", f"{upstream.url}/files", ((b"content-length", b"6"),))
        with pytest.raises(WireError):
            send(side, begin(request, Pieces(*pieces)))
        assert upstream.wait_for(lambda: upstream.connections and not upstream.open_connections, TIMEOUT)
        assert not upstream.requests
