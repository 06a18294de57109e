from __future__ import annotations

import base64
import functools
import socket
import ssl
from typing import Any

import httpcore2
import pytest

from lab.clients import CHAT, STREAM, RawClient, Stopwatch, dechunk, is_reset_at_once, split_head, text_of
from ports import free_port
from timing import Control
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream

AUTH = ("user", "secret:word")
SILENT = ScriptedAnswer(think=60)


def connect(client: RawClient, target: str, *headers: str) -> bytes:
    """Ask for a tunnel by CONNECT; the status line."""
    client.send("\r\n".join([f"CONNECT {target} HTTP/1.1", f"host: {target}", *headers, "", ""]).encode())
    return client.read_until(b"\r\n\r\n").splitlines()[0]


def socks_connect(client: RawClient, address: bytes, port: int, command: int = 1) -> int:
    """Ask for a tunnel by SOCKS5, `address` with its type; the code of the reply."""
    client.send(b"\x05\x01\x00")
    assert client.read(2) == b"\x05\x00"
    client.send(b"\x05%c\x00" % command + address + port.to_bytes(2))
    reply = client.read(10)
    assert reply[0] == 5
    return reply[1]


def basic(user: str, password: str) -> str:
    return "proxy-authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def has_moved(proxy: CuttingProxy, bytes_down: int) -> bool:
    return proxy.tunnels[0].bytes_down > bytes_down


def closed(proxy: CuttingProxy) -> bool:
    return proxy.wait_for(lambda: proxy.tunnels and all(tunnel.closed_at for tunnel in proxy.tunnels), 10)


# -- the ways through


def test_tunnels_by_connect() -> None:
    with Upstream() as upstream, CuttingProxy() as proxy, RawClient(proxy.port) as client:
        assert connect(client, f"localhost:{upstream.port}") == b"HTTP/1.1 200 Connection established"
        for _ in range(2):
            client.post()
            assert text_of(client.read_response()[1]) == "Hello from the lab."
        assert upstream.connections == 1
        client.close()
        assert closed(proxy)
    (tunnel,) = proxy.tunnels
    assert (tunnel.kind, tunnel.target) == ("connect", ("localhost", upstream.port))
    assert tunnel.bytes_up > 2 * len(STREAM)
    assert tunnel.bytes_down > 2 * len(upstream.requests[0].sent)
    assert tunnel.cut_at is None
    assert tunnel.closed_at is not None
    assert tunnel.opened_at < tunnel.closed_at


@pytest.mark.parametrize(
    ("address", "host"),
    [(b"\x01\x7f\0\0\1", "127.0.0.1"), (b"\x03\x09localhost", "localhost"), (b"\x03\x09127.0.0.1", "127.0.0.1")],
)
def test_tunnels_by_socks5(address: bytes, host: str) -> None:
    with Upstream() as upstream, CuttingProxy() as proxy, RawClient(proxy.port) as client:
        assert socks_connect(client, address, upstream.port) == 0
        client.post()
        assert text_of(client.read_response()[1]) == "Hello from the lab."
    assert (proxy.tunnels[0].kind, proxy.tunnels[0].target) == ("socks5", (host, upstream.port))


def test_tunnels_to_ipv6_by_socks5_and_by_connect() -> None:
    try:
        upstream = Upstream(host="::1").start()
    except OSError:
        pytest.skip("no IPv6 here")
    with CuttingProxy() as proxy, RawClient(proxy.port) as first, RawClient(proxy.port) as second:
        assert socks_connect(first, b"\x04" + bytes(15) + b"\1", upstream.port) == 0
        assert connect(second, f"[::1]:{upstream.port}").startswith(b"HTTP/1.1 200")
        for client in (first, second):
            client.post()
            assert client.read_response()[0].status_code == 200
        assert [tunnel.target for tunnel in proxy.tunnels] == [("::1", upstream.port)] * 2
    upstream.close()


def test_forwards_requests() -> None:
    with Upstream() as upstream, CuttingProxy(auth=AUTH) as proxy, RawClient(proxy.port) as client:
        client.send(
            b"POST http://localhost:%d%s?a=b HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n"
            % (upstream.port, CHAT.encode())
            + b"Proxy-Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nTE: trailers\r\n"
            + basic(*AUTH).encode()
            + b"\r\n\r\n"
        )
        client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(STREAM), STREAM))
        response, body = client.read_response()
        assert client.read_to_end() == (b"", None)
        client.close()
        assert closed(proxy)
    request = upstream.requests[0]
    assert (request.target, request.body) == (CHAT + "?a=b", STREAM)
    assert request.headers == [
        ("host", "lab"),
        ("transfer-encoding", "chunked"),
        ("x-end", "2"),
        ("connection", "close"),
    ]
    assert (b"connection", b"close") in response.headers
    assert body == request.sent
    assert (proxy.tunnels[0].kind, proxy.tunnels[0].target) == ("forward", ("localhost", upstream.port))


def test_connects_everyone_with_a_fixed_target() -> None:
    with Upstream() as upstream:
        target = ("127.0.0.1", upstream.port)
        with CuttingProxy(target=target) as proxy, RawClient(proxy.port) as client:
            client.post()
            assert text_of(client.read_response()[1]) == "Hello from the lab."
        assert (proxy.tunnels[0].kind, proxy.tunnels[0].target) == ("fixed", target)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("socks", [False, True])
@pytest.mark.parametrize("auth", [None, AUTH])
def test_httpcore2_gets_through(
    tls: bool, socks: bool, auth: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(ssl_context=server_tls if tls else None) as upstream, CuttingProxy(auth=auth, idle=5) as proxy:
        through = httpcore2.Proxy(proxy.socks_url if socks else proxy.url, auth=auth)
        with httpcore2.ConnectionPool(ssl_context=client_tls, http2=True, proxy=through) as pool:
            response = pool.request("POST", upstream.url + "/chat/completions", content=STREAM)
        assert response.status == 200
        assert response.content == upstream.requests[0].sent
        assert closed(proxy)
        assert proxy.tunnels[0].kind == ("socks5" if socks else "connect" if tls else "forward")


# -- the ways that are closed


@pytest.mark.parametrize("header", [(), (basic("user", "wrong"),)])
def test_wants_credentials_by_http(header: tuple[str, ...]) -> None:
    with CuttingProxy(auth=AUTH) as proxy, RawClient(proxy.port) as client:
        client.send("\r\n".join(["CONNECT localhost:1 HTTP/1.1", "host: x", *header, "", ""]).encode())
        data, error = client.read_to_end()
    assert data.startswith(b"HTTP/1.1 407 ")
    assert b"proxy-authenticate: Basic" in data
    assert error is None


def test_takes_credentials_by_http() -> None:
    with Upstream() as upstream, CuttingProxy(auth=AUTH) as proxy, RawClient(proxy.port) as client:
        assert b" 200 " in connect(client, f"localhost:{upstream.port}", basic(*AUTH))


@pytest.mark.parametrize(("password", "status"), [(b"secret:word", 0), (b"wrong", 1)])
def test_wants_credentials_by_socks5(password: bytes, status: int) -> None:
    with CuttingProxy(auth=AUTH) as proxy, RawClient(proxy.port) as client:
        client.send(b"\x05\x02\x00\x02")
        assert client.read(2) == b"\x05\x02"
        client.send(b"\x01\x04user" + bytes([len(password)]) + password)
        assert client.read(2) == bytes([1, status])
        if status:
            assert client.read_to_end() == (b"", None)


@pytest.mark.parametrize(("auth", "offer"), [(AUTH, b"\x00"), (None, b"\x02")])
def test_has_no_other_method_of_socks5(auth: Any, offer: bytes) -> None:
    with CuttingProxy(auth=auth) as proxy, RawClient(proxy.port) as client:
        client.send(b"\x05\x01" + offer)
        assert client.read_to_end() == (b"\x05\xff", None)


@pytest.mark.parametrize(("address", "command", "code"), [(b"\x01\x7f\0\0\1", 2, 7), (b"\x09", 1, 8)])
def test_speaks_no_more_of_socks5_than_it_needs(address: bytes, command: int, code: int) -> None:
    with CuttingProxy() as proxy, RawClient(proxy.port) as client:
        assert socks_connect(client, address, 1, command) == code


def test_dials_this_machine_only() -> None:
    with CuttingProxy() as proxy:
        for target in ("example.com:80", "10.0.0.1:80", "0.0.0.0:80"):
            with RawClient(proxy.port) as client:
                assert b" 403 " in connect(client, target)
        with RawClient(proxy.port) as client:
            assert socks_connect(client, b"\x03\x0bexample.com", 80) == 2
        assert proxy.tunnels == []


def test_dials_elsewhere_if_it_may() -> None:
    with Upstream() as upstream, CuttingProxy(allow_remote=True) as proxy, RawClient(proxy.port) as client:
        # The numeric form is a name to us and an address to the resolver, so nobody is asked.
        assert b" 200 " in connect(client, f"127.1:{upstream.port}")


def test_tells_that_a_target_cannot_be_reached() -> None:
    port = free_port()
    with CuttingProxy() as proxy, CuttingProxy(target=("127.0.0.1", port)) as fixed:
        with RawClient(proxy.port) as client:
            assert b" 502 " in connect(client, f"localhost:{port}")
        with RawClient(proxy.port) as client:
            assert socks_connect(client, b"\x01\x7f\0\0\1", port) == 5
        assert is_reset_at_once(fixed.port)


def test_refuses_on_purpose() -> None:
    with CuttingProxy(refuse=555) as proxy:
        with RawClient(proxy.port) as client:
            assert b" 555 " in connect(client, "localhost:1")
        with RawClient(proxy.port) as client:
            assert socks_connect(client, b"\x01\x7f\0\0\1", 1) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /path HTTP/1.1\r\nhost: x",
        b"GET https://localhost/ HTTP/1.1\r\nhost: x",
        b"CONNECT localhost HTTP/1.1\r\nhost: x",
        b"CONNECT localhost:http HTTP/1.1\r\nhost: x",
        b"no http at all",
    ],
)
def test_refuses_what_it_does_not_understand(head: bytes) -> None:
    with CuttingProxy() as proxy, RawClient(proxy.port) as client:
        client.send(head + b"\r\n\r\n")
        assert client.read_to_end()[0].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("start", [b"", b"\x05", b"GET http://", b"\x05\x01\x00\x05\x01"])
def test_a_client_may_leave_at_any_time(start: bytes, capfd: Any) -> None:
    with CuttingProxy() as proxy:
        client = RawClient(proxy.port)
        client.send(start)
        assert proxy.wait_for(lambda: proxy.connections == 1, 10)
        client.close()
        assert proxy.wait_for(lambda: proxy.open_connections == 0, 10)
    assert capfd.readouterr().err == ""


def test_a_head_without_an_end_is_not_waited_for() -> None:
    with CuttingProxy() as proxy, RawClient(proxy.port) as client:
        client.send(b"GET http://localhost/ HTTP/1.1\r\nx: " + b"x" * 70_000)
        client.read_to_end()


# -- the cuts


@pytest.mark.timing
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_cuts_what_is_idle(how: Any, promptly: Control) -> None:
    with (
        Upstream(answer=SILENT) as upstream,
        CuttingProxy(idle=0.2, how=how) as proxy,
        RawClient(proxy.port) as client,
    ):
        connect(client, f"localhost:{upstream.port}")
        watch = Stopwatch()
        client.post()
        client.read_until(b"\r\n\r\n")
        data, error = client.read_to_end()
        assert watch.seconds >= 0.2
        promptly(watch.started, within=0.3)
        assert data == b""
        assert isinstance(error, ConnectionResetError) if how == "rst" else error is None
        assert upstream.wait_for(lambda: upstream.requests[0].gone, 10)
        assert closed(proxy)
    (tunnel,) = proxy.tunnels
    assert proxy.cuts_made == 1
    assert tunnel.cut_at is not None
    assert tunnel.cut_at - tunnel.opened_at >= 0.2
    promptly(tunnel.opened_at, tunnel.cut_at, within=0.35)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_movement_in_either_direction_keeps_it_open(direction: str) -> None:
    answer = ScriptedAnswer(text=("word",) * 8, gap=0.1) if direction == "down" else SILENT
    with Upstream(answer=answer) as upstream, CuttingProxy(idle=0.5) as proxy, RawClient(proxy.port) as client:
        connect(client, f"localhost:{upstream.port}")
        if direction == "down":
            client.post()
            assert text_of(client.read_response()[1]) == "word" * 8
        else:
            watch = Stopwatch()
            for byte in b"POST /v1":
                client.send(bytes([byte]))
                assert not proxy.wait_for(lambda: proxy.cuts_made, 0.1)
            assert watch.seconds >= 0.8


def test_cuts_only_so_many() -> None:
    with Upstream(answer=ScriptedAnswer(think=0.3)) as upstream, CuttingProxy(idle=0.1, cuts=1) as proxy:
        with RawClient(proxy.port) as client:
            connect(client, f"localhost:{upstream.port}")
            assert isinstance(client.read_to_end()[1], ConnectionResetError)
        with RawClient(proxy.port) as client:
            connect(client, f"localhost:{upstream.port}")
            client.post()
            assert text_of(client.read_response()[1]) == "Hello from the lab."
        assert proxy.cuts_made == 1


def test_a_black_hole_swallows_everything_and_stays() -> None:
    answer = ScriptedAnswer(text=("word",) * 100, gap=0.05)
    with (
        Upstream(answer=answer) as upstream,
        CuttingProxy(black_hole_after=0.12) as proxy,
        RawClient(proxy.port) as client,
    ):
        connect(client, f"localhost:{upstream.port}")
        client.post()
        assert client.read_until(b'"word"')
        client.socket.settimeout(0.25)
        with pytest.raises(TimeoutError):
            client.read_to_end()
        bytes_down = proxy.tunnels[0].bytes_down
        assert proxy.wait_for(lambda: proxy.tunnels[0].bytes_down > bytes_down, 10)
        assert not upstream.requests[0].gone
        client.close()
        assert closed(proxy)
        assert upstream.wait_for(lambda: upstream.requests[0].gone, 10)


def test_a_frozen_path_carries_nothing_and_keeps_what_was_sent() -> None:
    answer = ScriptedAnswer(text=("word",) * 20, gap=0.02)
    with Upstream(answer=answer) as upstream, CuttingProxy() as proxy, RawClient(proxy.port) as client:
        connect(client, f"localhost:{upstream.port}")
        client.post()
        client.read_until(b'"word"')
        proxy.freeze()
        assert upstream.wait_for(lambda: upstream.requests[0].done, 5)
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.read_until(b"[DONE]")
        client.socket.settimeout(5)
        proxy.thaw()
        client.read_until(b"[DONE]")


@pytest.mark.parametrize("coming", [True, False], ids=["freezes", "does not freeze"])
def test_it_freezes_what_comes_too_if_asked_to(coming: bool) -> None:
    with Upstream() as upstream, CuttingProxy() as proxy:
        proxy.freeze(coming=coming)
        with RawClient(proxy.port) as client:
            client.socket.settimeout(0.1 if coming else 5)
            if coming:
                with pytest.raises(TimeoutError):
                    connect(client, f"localhost:{upstream.port}")
                proxy.thaw()
                client.socket.settimeout(5)
                client.read_until(b"200")
            else:
                connect(client, f"localhost:{upstream.port}")
                client.post()
                assert text_of(client.read_response()[1]) == "Hello from the lab."


# -- what it must not change


@pytest.mark.parametrize("kind", ["rst", "fin"])
@pytest.mark.parametrize("way", ["connect", "forward", "fixed"])
def test_an_end_of_the_target_arrives_as_what_it_was(kind: Any, way: str) -> None:
    with Upstream(faults=[Fault(kind, "after_token")]) as upstream:
        target = ("127.0.0.1", upstream.port)
        with CuttingProxy(target=target if way == "fixed" else None) as proxy, RawClient(proxy.port) as client:
            if way == "connect":
                connect(client, f"localhost:{upstream.port}")
            client.post(path=f"http://localhost:{upstream.port}{CHAT}" if way == "forward" else CHAT)
            data, error = client.read_to_end()
    assert isinstance(error, ConnectionResetError) if kind == "rst" else error is None
    assert dechunk(split_head(data)[1]) == (upstream.requests[0].sent, b"")


@pytest.mark.parametrize("reset", [False, True])
def test_an_end_of_the_client_arrives_as_what_it_was(reset: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        CuttingProxy(target=target.getsockname()) as proxy,
        RawClient(proxy.port) as client,
    ):
        accepted, _ = target.accept()
        with accepted:
            accepted.settimeout(1)
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
                with pytest.raises(ConnectionResetError):
                    accepted.recv(1)
            else:
                client.send(b"last words")
                client.socket.shutdown(socket.SHUT_WR)
                assert accepted.recv(100) == b"last words"
                assert accepted.recv(1) == b""
                accepted.sendall(b"answer")  # the other direction is still open
                assert client.read(6) == b"answer"


def test_a_slow_reader_slows_the_sender_down() -> None:
    with (
        Upstream(answer=ScriptedAnswer(text=("x" * 30_000_000,))) as upstream,
        CuttingProxy() as proxy,
        RawClient(proxy.port) as client,
    ):
        connect(client, f"localhost:{upstream.port}")
        client.post()
        client.read_until(b"\r\n\r\n")
        watch = Stopwatch()
        seen = -1
        while seen != proxy.tunnels[0].bytes_down:
            seen = proxy.tunnels[0].bytes_down
            proxy.wait_for(functools.partial(has_moved, proxy, seen), 0.1)
            assert watch.seconds < 10
        assert proxy.tunnels[0].bytes_down < 25_000_000
        assert not upstream.requests[0].done
        client.read(30_000_000)
        assert client.read_until(b"\r\n0\r\n\r\n")
