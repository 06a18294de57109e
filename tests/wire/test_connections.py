"""A turn has its connection to itself; what ended cleanly is used again; what did not leaves nothing behind."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from typing import Any

import anyio
import pytest

import unbroken.wire.pool
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from unbroken.wire.async_http import AsyncHttpWire
from waiting import poll
from wire.servers import RawServer, read_head, silence
from wire.sides import Side, Talk, chat, failure_of, limits

protocols = pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])


def play(talk: Talk) -> bytes:
    assert talk.send().status == 200
    return talk.read_all()


@protocols
def test_a_connection_that_ended_cleanly_is_used_again(
    side: Side, http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(ssl_context=server_tls, http2=http2) as upstream, side.wire(verify=client_tls) as exchange:
        for number in range(3):
            assert play(exchange(chat(upstream.url))) == upstream.requests[number].sent
        assert upstream.connections == 1
    assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=10)


@protocols
def test_a_connection_outlives_the_event_loop_that_made_it(
    http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Programs call ``asyncio.run`` more than once; and a trio program may follow."""
    wire = AsyncHttpWire(environ={}, verify=client_tls)

    async def turn(url: str) -> None:
        exchange = wire.exchange(chat(url))
        await exchange.send(limits())
        while await exchange.read(limits()):
            pass

    with Upstream(ssl_context=server_tls, http2=http2) as upstream:
        for backend in ("asyncio", "asyncio", "trio", "asyncio"):
            anyio.run(turn, upstream.url, backend=backend)
        anyio.run(wire.aclose)
        assert upstream.connections == 1


@protocols
def test_turns_at_the_same_time_have_a_connection_each(
    side: Side, http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(answer=ScriptedAnswer(gap=0.01), ssl_context=server_tls, http2=http2) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        first, second = exchange(chat(upstream.url)), exchange(chat(upstream.url))
        first.send()
        second.send()
        assert upstream.connections == 2
        first.close()  # which kills one turn, and no other
        assert second.read_all() == upstream.requests[1].sent


@protocols
def test_the_connection_of_a_turn_that_was_left_is_not_used_again(
    side: Side, http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(faults=[Fault("stall", "after_token")], ssl_context=server_tls, http2=http2) as upstream:
        with side.wire(verify=client_tls) as exchange:
            left = exchange(chat(upstream.url))
            left.send()
            left.read_until(b"Hello")
            left.close()
            play(exchange(chat(upstream.url)))
        assert upstream.connections == 2


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again(side: Side) -> None:
    """It sees a request, answers it, and closes a connection that it promised to keep."""

    def answer_once(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with RawServer(answer_once) as server, side.wire() as exchange:
        for _ in range(3):
            assert play(exchange(chat(server.url))) == b"ok"
            server.wait_until_gone()
        assert server.connections == 3


def test_a_connection_on_which_more_came_than_the_answer_is_not_used_again(side: Side) -> None:
    def answer_too_much(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more")
        silence(sock)

    with RawServer(answer_too_much) as server, side.wire() as exchange:
        for _ in range(2):
            assert play(exchange(chat(server.url))) == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize("said", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n"])
def test_a_connection_that_the_server_will_close_is_not_used_again(side: Side, said: bytes) -> None:
    def answer(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(said + b"content-length: 2\r\n\r\nok")
        silence(sock)

    with RawServer(answer) as server, side.wire() as exchange:
        for _ in range(2):
            assert play(exchange(chat(server.url))) == b"ok"
        assert server.connections == 2


def test_an_idle_connection_is_kept_for_a_while_only(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    with Upstream() as upstream, side.wire() as exchange:
        play(exchange(chat(upstream.url)))
        monkeypatch.setattr(unbroken.wire.pool, "KEEP_IDLE", 0.0)
        play(exchange(chat(upstream.url)))
        assert upstream.connections == 2


def test_no_more_than_a_few_idle_connections_are_kept(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbroken.wire.pool, "MAX_IDLE", 2)
    with Upstream() as upstream, side.wire() as exchange:
        talks = [exchange(chat(upstream.url)) for _ in range(4)]
        for talk in talks:
            talk.send()
        for talk in talks:
            talk.read_all()
        assert upstream.wait_for(lambda: upstream.open_connections == 2, timeout=10)


def test_a_connection_through_another_proxy_is_not_used_again(side: Side) -> None:
    environ: dict[str, str] = {}
    with Upstream() as upstream, CuttingProxy() as proxy, side.wire(environ=environ) as exchange:
        play(exchange(chat(upstream.url)))
        environ["http_proxy"] = proxy.socks_url
        play(exchange(chat(upstream.url)))
        assert (upstream.connections, len(proxy.tunnels)) == (2, 1)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "by SOCKS5"])
def test_the_kernel_looks_after_the_path_too(side: Side, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[Any, int] = {}

    class Noting(socket.socket):
        def setsockopt(self, level: int, name: int, value: Any) -> None:  # type: ignore[override]
            options[level, name] = value
            super().setsockopt(level, name, value)

    with (
        Upstream() as upstream,
        CuttingProxy() as proxy,
        side.wire(proxy=proxy.socks_url if proxied else "") as exchange,
    ):
        monkeypatch.setattr(socket, "socket", Noting)
        talk = exchange(chat(upstream.url))
        talk.send(limits(ping=7, ping_timeout=15, idle=70))
        monkeypatch.undo()
        talk.read_all()
    assert options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert options[socket.IPPROTO_TCP, socket.TCP_NODELAY] == 1
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] == 7
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPINTVL] == 7
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPCNT] == 10  # the kernel does not give up before the idle timeout
    assert options[socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT] == 77_000


@protocols
def test_three_hundred_turns_that_were_left_leave_nothing(
    side: Side, http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    answer = ScriptedAnswer(think=60, think_at="before_headers")
    with (
        Upstream(answer=answer, ssl_context=server_tls if http2 else None) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        before = _resources(side)
        for number in range(300):
            talk, seen = exchange(chat(upstream.url)), upstream.connections
            pending = talk.start_sending()
            if number % 3:
                assert upstream.wait_for(lambda seen=seen: upstream.connections > seen, timeout=5)
            talk.close() if number % 2 else pending.cancel()
            pending.wait_until_ended()
        assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=5)
        poll(lambda: not_more(_resources(side), before))


@pytest.mark.parametrize("at", ["connect", "handshake", "before_headers", "after_token"])
def test_turns_that_failed_leave_nothing(
    side: Side, at: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    faults = [Fault("rst", at)] * 10
    with Upstream(faults=faults, ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        before = _resources(side)
        for _ in faults:
            failure_of(play, exchange(chat(upstream.url)))
        assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=5)
        poll(lambda: not_more(_resources(side), before))


def _resources(side: Side) -> tuple[int, int, int]:
    """Open files, threads and tasks."""
    return len(os.listdir("/proc/self/fd")), threading.active_count(), side.tasks()  # noqa: PTH208


def not_more(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether nothing has come; something of other tests may have gone meanwhile."""
    return all(count <= was for count, was in zip(now, before, strict=True))
