"""Bytes of a body that are handed on from the event loop's call: all of them, in order, up to a sink that stops."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from unbroken.core.failures import Failure
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from wire.servers import RawServer, read_head, reset, saying, silence
from wire.sides import PATIENT, TIMEOUT, Side, Talk, chat, failure_of

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _only_where_the_event_loop_calls(side: Side) -> None:
    if side.portal is None:
        pytest.skip("the blocking wire has no event loop")


def pour(talk: Talk, sink: Callable[[bytes], bool]) -> None:
    talk._side.run(talk._exchange.pour, PATIENT, sink)


def pour_all(talk: Talk, stops_after: int) -> tuple[bytes, int]:
    """The body, of which a sink takes so many pieces at a time, and reading the next; and how many were poured."""
    body, poured = bytearray(), 0

    def sink(data: bytes) -> bool:
        nonlocal poured
        body.extend(data)
        poured += 1
        return poured % stops_after != 0

    piece = talk.read()
    while piece:
        body += piece
        pour(talk, sink)
        piece = talk.read()
    return bytes(body), poured


@pytest.mark.parametrize("stops_after", [1, 2, 7, 10**9])
@pytest.mark.parametrize(("encrypted", "http2"), [(False, False), (True, False), (True, True)])
def test_a_body_is_whole_wherever_the_sink_stops(
    side: Side,
    encrypted: bool,
    http2: bool,
    stops_after: int,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if stops_after == 7:
        monkeypatch.setattr("unbroken.wire.loops.asyncio.MAX_AT_ONCE", 0)  # others have their turn after each read
    answer = ScriptedAnswer(text=["word " * 2000] * 100)
    tls = server_tls if encrypted else None
    with Upstream(answer=answer, ssl_context=tls, http2=http2) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        talk.send()
        body, poured = pour_all(talk, stops_after)
        assert body == upstream.requests[0].sent
        assert not (poured and side.name == "trio")


def test_it_is_handed_on_the_moment_it_is_there(side: Side) -> None:
    with Upstream(faults=[Fault("stall", "after_token")]) as upstream, side.wire() as exchange:
        talk = exchange(chat(upstream.url))
        talk.send()
        seen = bytearray()
        pour(talk, lambda data: seen.extend(data) or b"Hello" not in seen)
        body = bytes(seen) if b"Hello" in seen else bytes(seen) + talk.read_until(b"Hello")
        assert body == upstream.requests[0].sent
        talk.close()


def test_a_failure_is_raised_after_what_came_before_it(side: Side) -> None:
    pieces = [HEAD, b"2\r\nab\r\n", b"2\r\ncd\r\nzz\r\n"]
    with RawServer(saying(*pieces)) as server, side.wire() as exchange:
        talk = exchange(chat(server.url))
        talk.send()
        seen = bytearray()
        failure: Failure | None = None
        try:
            pour(talk, lambda data: not seen.extend(data))
            while piece := talk.read():
                seen += piece
        except Exception as exc:  # noqa: BLE001
            failure = getattr(exc, "failure", None)
        assert (bytes(seen), failure) == (b"abcd", Failure.BROKEN_FRAMING)
        assert failure_of(talk.read)[0] is Failure.BROKEN_FRAMING


def test_a_reset_that_comes_with_bytes_ends_it_after_them(side: Side) -> None:
    """Where both are there at once, uvloop calls but once."""
    pouring = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(HEAD + b"2\r\nab\r\n")
        pouring.wait(TIMEOUT)
        sock.sendall(b"2\r\ncd\r\n")
        reset(sock)

    with RawServer(script) as server, side.wire() as exchange:
        talk = exchange(chat(server.url))
        talk.send()
        seen = bytearray()

        def sink(data: bytes) -> bool:
            seen.extend(data)
            pouring.set()
            time.sleep(0.05 if seen == b"ab" else 0)  # the event loop is busy while both come
            return True

        def until_it_ends() -> None:
            pour(talk, sink)
            pouring.set()
            while piece := talk.read():
                seen.extend(piece)

        assert failure_of(until_it_ends)[0] in (Failure.RESET, Failure.CLOSED)
        assert seen == b"abcd"


def test_a_cancelled_one_ends_the_exchange(side: Side) -> None:
    if side.name == "trio":
        pytest.skip("trio's loop does not call")
    with (
        RawServer(lambda sock: (read_head(sock), sock.sendall(HEAD), silence(sock))) as server,
        side.wire() as exchange,
    ):
        talk = exchange(chat(server.url))
        talk.send()
        pending: Any = talk._start(lambda limits: talk._exchange.pour(limits, lambda data: True), PATIENT)
        pending.cancel()
        pending.wait_until_ended()
        server.wait_until_gone()
