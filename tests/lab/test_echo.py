"""The server of silence: what it answers, over both versions of HTTP, and what it refuses."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl

import pytest

from unbroken.core.actions import Limits
from unbroken.core.http import Head, Request
from unbroken.lab.echo import LONGEST, TOKEN_HEADER, EchoServer, SilenceRequest, read_target
from unbroken.wire.http import HttpWire

LIMITS = Limits(connect=30.0, idle=30.0, until=None, ping=0.0, ping_timeout=math.inf)


@pytest.mark.parametrize(
    ("target", "silence"),
    [
        ("/silence", SilenceRequest(60.0, 0.0, "")),
        ("/any/path/silence?seconds=3&comments=0.5&token=a-b_9", SilenceRequest(3.0, 0.5, "a-b_9")),
        ("/v1/models", None),
        (f"/silence?seconds={LONGEST + 1:g}", None),
        ("/silence?seconds=-1", None),
        ("/silence?seconds=nan", None),
        ("/silence?seconds=soon", None),
        ("/silence?comments=0.01", None),
        ("/silence?token=a%0d%0ab", None),
        (f"/silence?token={'a' * 65}", None),
        ("/silence?" + "&".join(f"a{number}=1" for number in range(20)), None),
    ],
)
def test_what_a_target_asks_for(target: str, silence: SilenceRequest | None) -> None:
    assert read_target(target) == silence


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(("query", "least"), [("seconds=0", 2), ("seconds=0.5&comments=0.1", 5)])
def test_the_token_comes_back_and_then_what_was_wanted(
    version: str, query: str, least: int, server_tls: ssl.SSLContext
) -> None:
    with (
        EchoServer(ssl_context=server_tls if version == "HTTP/2" else None) as server,
        contextlib.closing(HttpWire(proxy="", verify=False)) as wire,
    ):
        exchange = wire.exchange(Request("GET", f"{server.url}/silence?{query}&token=t-1"))
        head = exchange.send(LIMITS)
        assert isinstance(head, Head)
        assert (head.status, head.http_version, head.fields[TOKEN_HEADER]) == (200, version, "t-1")
        body = b""
        while data := exchange.read(LIMITS):
            assert isinstance(data, bytes)
            body += data
    assert body.count(b": silence\n\n") >= least
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("secure", [False, True])
def test_anything_else_is_not_found(secure: bool, server_tls: ssl.SSLContext) -> None:
    with (
        EchoServer(ssl_context=server_tls if secure else None) as server,
        contextlib.closing(HttpWire(proxy="", verify=False)) as wire,
    ):
        for request in (Request("GET", f"{server.url}/v1/models"), Request("POST", f"{server.url}/silence")):
            with contextlib.closing(wire.exchange(request)) as exchange:
                head = exchange.send(LIMITS)
            assert isinstance(head, Head)
            assert head.status == 404


@pytest.mark.parametrize("sent", [b"\0" * 100, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, b"GET\r\n\r\n", b""])
def test_what_is_not_http_ends_a_connection_and_not_the_server(sent: bytes) -> None:
    with EchoServer() as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
            try:
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
        assert server.wait_for(lambda: server.open_connections == 0, 30)
