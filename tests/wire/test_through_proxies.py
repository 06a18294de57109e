"""The wire through proxies of every kind, and what it calls their failures."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.errors import UsageError
from unbroken.lab import CuttingProxy, ScriptedAnswer, Upstream
from wire.servers import RawServer, Script, closed_port, read_head, relaying_to, reset, silence
from wire.sides import PATIENT, Side, Talk, chat, failure_of, limits

AUTH = ("user", "s3cret:/@")
QUOTED = "user:s3cret%3A%2F%40"


def play(talk: Talk, limits: Limits = PATIENT) -> bytes:
    assert talk.send(limits).status == 200
    return talk.read_all(limits)


# What works


@pytest.mark.parametrize("target", ["http://127.0.0.1", "http://[::1]", "https://localhost", "https://[::1]"])
@pytest.mark.parametrize("auth", [None, AUTH], ids=["open", "with credentials"])
@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h", "https"])
def test_a_turn_goes_through(
    side: Side,
    scheme: str,
    auth: Any,
    target: str,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    host = "::1" if "::1" in target else "127.0.0.1"
    encrypted = target.startswith("https")
    with (
        Upstream(host=host, ssl_context=server_tls if encrypted else None) as upstream,
        CuttingProxy(auth=auth) as proxy,
        RawServer(relaying_to(proxy.port), server_tls) as front,
    ):
        port = front.port if scheme == "https" else proxy.port
        url = f"{scheme}://{QUOTED + '@' if auth else ''}127.0.0.1:{port}"
        with side.wire(proxy=url, verify=client_tls) as exchange:
            for number in range(2):
                body = play(exchange(chat(f"{target}:{upstream.port}/v1")))
                assert body == upstream.requests[number].sent
        assert upstream.requests[0].http_version == ("2" if encrypted else "1.1")
        kind = "socks5" if scheme.startswith("socks5") else "connect" if encrypted else "forward"
        named = target.partition("://")[2].strip("[]")
        assert {(tunnel.kind, tunnel.target) for tunnel in proxy.tunnels} == {(kind, (named, upstream.port))}
        if kind != "forward":  # where the lab's proxy lets a connection carry one request
            assert len(proxy.tunnels) == 1


def test_a_proxy_may_choose_to_ask_for_no_credentials(side: Side) -> None:
    with Upstream() as upstream, CuttingProxy() as proxy:
        with side.wire(proxy=proxy.socks_url.replace("://", f"://{QUOTED}@")) as exchange:
            assert play(exchange(chat(upstream.url))) == upstream.requests[0].sent
        assert len(proxy.tunnels) == 1


def test_ping_keeps_a_path_that_would_be_cut_while_nothing_moves(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(answer=ScriptedAnswer(think=0.7), ssl_context=server_tls) as upstream,
        CuttingProxy(idle=0.3, how="rst") as resetting,
        CuttingProxy(idle=0.3, how="fin") as closing,
    ):
        for url, cut in ((resetting.url, Failure.RESET), (closing.socks_url, Failure.CLOSED)):
            with side.wire(proxy=url, verify=client_tls) as exchange:
                assert failure_of(play, exchange(chat(upstream.url)))[0] is cut
                assert play(exchange(chat(upstream.url)), limits(ping=0.1)) == upstream.requests[-1].sent
        assert (resetting.cuts_made, closing.cuts_made) == (1, 1)


def test_the_environment_s_proxy_is_used_and_no_proxy_goes_around_it(side: Side) -> None:
    with Upstream() as upstream, CuttingProxy() as proxy:
        for environ, tunnels in (
            ({"http_proxy": proxy.socks_url}, 1),
            ({"ALL_PROXY": proxy.socks_url}, 2),
            ({"ALL_PROXY": proxy.socks_url, "NO_PROXY": "127.0.0.0/8"}, 2),
            ({"https_proxy": proxy.socks_url}, 2),
        ):
            with side.wire(environ=environ) as exchange:
                play(exchange(chat(upstream.url)))
            assert len(proxy.tunnels) == tunnels


def test_an_explicit_proxy_wins_over_no_proxy(side: Side) -> None:
    with Upstream() as upstream, CuttingProxy() as proxy:
        with side.wire(proxy=proxy.url, environ={"NO_PROXY": "*"}) as exchange:
            play(exchange(chat(upstream.url)))
        assert len(proxy.tunnels) == 1


def test_a_proxy_of_an_unknown_kind_is_never_answered_by_a_direct_connection(side: Side) -> None:
    with Upstream() as upstream, side.wire(environ={"ALL_PROXY": "gopher://127.0.0.1:70"}) as exchange:
        talk = exchange(chat(upstream.url))
        with pytest.raises(UsageError, match="unknown scheme gopher"):
            talk.send()
        assert upstream.connections == 0


# What does not

Staging = Callable[[ssl.SSLContext], AbstractContextManager[str]]
"""Yields the URL of a proxy."""


def lab(scheme: str, credentials: str = "", **options: Any) -> Staging:
    @contextmanager
    def stage(tls: ssl.SSLContext) -> Iterator[str]:
        with CuttingProxy(**options) as proxy:
            yield f"{scheme}://{credentials}127.0.0.1:{proxy.port}"

    return stage


def raw(scheme: str, script: Script, *, encrypted: bool = False) -> Staging:
    @contextmanager
    def stage(tls: ssl.SSLContext) -> Iterator[str]:
        with RawServer(script, tls if encrypted else None) as server:
            yield f"{scheme}://127.0.0.1:{server.port}"

    return stage


def closed(scheme: str) -> Staging:
    @contextmanager
    def stage(tls: ssl.SSLContext) -> Iterator[str]:
        yield f"{scheme}://127.0.0.1:{closed_port()}"

    return stage


def answering(data: bytes) -> Script:
    """Whatever comes first, answer with this."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)
        silence(sock)

    return script


def leaving(how: Callable[[socket.socket], object]) -> Script:
    return lambda sock: (sock.recv(65536), how(sock), None)[-1]


NOT_TLS = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def connected_to_no_tls(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    answering(NOT_TLS)(sock)


HERE, ELSEWHERE = "https://127.0.0.1:9/v1", "https://elsewhere.test/v1"
PLAIN = "http://127.0.0.1:9/v1"
F = Failure

CASES: dict[str, tuple[Staging, str, Failure, str, bool]] = {
    # name: what the proxy does, the target, what it is called, its detail, whether the request was sent
    "CONNECT: no credentials": (lab("http", auth=AUTH), HERE, F.PROXY_AUTH, "407", False),
    "CONNECT: wrong credentials": (lab("http", "user:wrong@", auth=AUTH), HERE, F.PROXY_AUTH, "407", False),
    "forward: no credentials": (lab("http", auth=AUTH), PLAIN, F.PROXY_AUTH, "407", True),
    "forward: wrong credentials": (lab("http", "user:wrong@", auth=AUTH), PLAIN, F.PROXY_AUTH, "407", True),
    "SOCKS5: no credentials": (lab("socks5h", auth=AUTH), HERE, F.PROXY_AUTH, "no acceptable method", False),
    "SOCKS5: wrong credentials": (lab("socks5h", "user:wrong@", auth=AUTH), HERE, F.PROXY_AUTH, "invalid user", False),
    "http: nobody there": (closed("http"), HERE, F.PROXY_UNREACHABLE, "connection refused", False),
    "https: nobody there": (closed("https"), HERE, F.PROXY_UNREACHABLE, "connection refused", False),
    "socks5h: nobody there": (closed("socks5h"), HERE, F.PROXY_UNREACHABLE, "connection refused", False),
    "forward: nobody there": (closed("http"), PLAIN, F.PROXY_UNREACHABLE, "connection refused", False),
    "CONNECT: 502": (lab("http", refuse=502), HERE, F.PROXY_UNREACHABLE, "502 Bad Gateway", False),
    "CONNECT: 504": (lab("http", refuse=504), HERE, F.PROXY_UNREACHABLE, "504", False),
    "CONNECT: 403": (lab("http", refuse=403), HERE, F.PROXY_REFUSED, "403 Forbidden", False),
    "CONNECT: target refused": (lab("http"), HERE, F.PROXY_UNREACHABLE, "502", False),
    "SOCKS5: failure": (lab("socks5h", refuse=502), HERE, F.PROXY_UNREACHABLE, "general SOCKS server failure", False),
    "SOCKS5: target refused": (lab("socks5h"), HERE, F.PROXY_UNREACHABLE, "connection refused", False),
    "SOCKS5: not allowed": (lab("socks5h"), ELSEWHERE, F.PROXY_REFUSED, "not allowed by ruleset", False),
    "CONNECT: not HTTP": (raw("http", answering(b"\x05\xff\r\n\r\n")), HERE, F.PROXY_PROTOCOL, "expected HTTP", False),
    "SOCKS5: an HTTP server": (raw("socks5h", answering(NOT_TLS)), HERE, F.PROXY_PROTOCOL, "", False),
    "SOCKS5: SOCKS4": (raw("socks5h", answering(b"\0\x5b\0\0\0\0\0\0")), HERE, F.PROXY_PROTOCOL, "", False),
    "https: not TLS": (raw("https", answering(NOT_TLS)), HERE, F.TLS_MISMATCH, "wrong version number", False),
    "CONNECT: closed": (raw("http", leaving(lambda sock: None)), HERE, F.CLOSED, "", False),
    "CONNECT: reset": (raw("http", leaving(reset)), HERE, F.RESET, "", False),
    "SOCKS5: closed": (raw("socks5h", leaving(lambda sock: None)), HERE, F.CLOSED, "", False),
    "SOCKS5: reset": (raw("socks5h", leaving(reset)), HERE, F.RESET, "", False),
    "CONNECT: target not TLS": (raw("http", connected_to_no_tls), HERE, F.TLS_MISMATCH, "wrong version number", False),
    "CONNECT: silence": (raw("http", silence), HERE, F.CONNECT_TIMEOUT, "0.3 s", False),
    "SOCKS5: silence": (raw("socks5h", silence), HERE, F.CONNECT_TIMEOUT, "0.3 s", False),
    "https: silence": (raw("https", silence), HERE, F.CONNECT_TIMEOUT, "0.3 s", False),
    "https: silence after TLS": (raw("https", silence, encrypted=True), HERE, F.CONNECT_TIMEOUT, "0.3 s", False),
}  # fmt: skip


@pytest.mark.parametrize(("stage", "target", "failure", "detail", "sent"), CASES.values(), ids=CASES.keys())
def test_a_proxy_s_failure_is_called_what_it_is(
    side: Side,
    stage: Staging,
    target: str,
    failure: Failure,
    detail: str,
    sent: bool,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    with stage(server_tls) as url, side.wire(proxy=url, verify=client_tls) as exchange:
        talk = exchange(chat(target))
        called, told = failure_of(talk.send, limits(connect=0.3 if failure is F.CONNECT_TIMEOUT else 5))
        assert called is failure
        assert detail in told
        assert "s3cret" not in told
        assert "wrong" not in told or "version" in told
        assert talk.path.sent is sent


def test_certificates_are_checked_of_the_proxy_and_of_the_target(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(ssl_context=server_tls) as upstream,
        CuttingProxy() as proxy,
        RawServer(relaying_to(proxy.port), server_tls) as front,
    ):
        for url in (proxy.url, proxy.socks_url, front.url):
            with side.wire(proxy=url, verify=ssl.create_default_context()) as exchange:
                assert failure_of(exchange(chat(upstream.url)).send)[0] is Failure.CERTIFICATE
    assert not upstream.requests
