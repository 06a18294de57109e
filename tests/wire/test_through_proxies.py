"""The wire through proxies of every kind, and what it calls their failures."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from ports import free_port
from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.errors import UsageError, WireError
from unbroken.lab import CuttingProxy, ScriptedAnswer, Upstream
from unbroken.wire.connection import Step
from unbroken.wire.culprits import Way, named
from unbroken.wire.proxies import GivenProxy, parse_proxy
from unbroken.wire.requests import Destination
from wire.servers import RawServer, Script, read_head, relaying_to, reset, silence
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
        yield f"{scheme}://127.0.0.1:{free_port()}"

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


def greeting(data: bytes) -> Script:
    """Say this without being asked, as servers of other protocols do."""

    def script(sock: socket.socket) -> None:
        sock.sendall(data)
        silence(sock)

    return script


def tunnelling(script: Script) -> Script:
    """Grant any tunnel, and go on with this."""

    def granting(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        script(sock)

    return granting


def socks(*answers: bytes, then: Callable[[socket.socket], object] = silence) -> Script:
    """Answer each message with the next of these."""

    def script(sock: socket.socket) -> None:
        for answer in answers:
            sock.recv(65536)
            sock.sendall(answer)
        then(sock)

    return script


def refusing(code: int, rest: bytes = b"\0\1\0\0\0\0\0\0") -> Staging:
    return raw("socks5h", socks(b"\5\0", bytes([5, code]) + rest))


def connect_says(status: str, *fields: str) -> Staging:
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()
    return raw("http", answering(head + b"<html>a page</html>"))


NOT_TLS = b"HTTP/1.1 400 Bad Request\r\n\r\n"
PAGE = b"<!DOCTYPE html><html><body>Welcome</body></html>"
SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
GARBAGE = b"\x00\xff\xfe\xfd\r\n\r\n"
LEAVE = leaving(lambda sock: None)
GRANTED = b"\5\0\0\1\0\0\0\0\0\0"

HERE, ELSEWHERE = "https://127.0.0.1:9/v1", "https://elsewhere.test/v1"
PLAIN = "http://127.0.0.1:9/v1"
F = Failure

THERE = "127.0.0.1:9"
CLOSED = f"accepted, then closed: wrong scheme, or it cannot reach {THERE}"
NOTHING = f"(--proxy) accepted, then said nothing: wrong scheme, or it cannot reach {THERE}"
OTHER = "speaks another protocol: it answered with"

CASES: dict[str, tuple[Staging, str, Failure, str, bool]] = {
    # name: what the proxy does, the target, what it is called, its detail after the name, whether the request was sent
    "CONNECT: no credentials": (lab("http", auth=AUTH), HERE, F.PROXY_AUTH, "asks for user and password: 407", False),
    "CONNECT: wrong credentials": (
        lab("http", "user:wr0ng@", auth=AUTH), HERE, F.PROXY_AUTH, "refuses user and password: 407", False),
    "forward: no credentials": (lab("http", auth=AUTH), PLAIN, F.PROXY_AUTH, "asks for user and password", True),
    "forward: wrong credentials": (
        lab("http", "user:wr0ng@", auth=AUTH), PLAIN, F.PROXY_AUTH, "refuses user and password: 407", True),
    "SOCKS5: no credentials": (lab("socks5h", auth=AUTH), HERE, F.PROXY_AUTH, "asks for user and password: no", False),
    "SOCKS5: wrong credentials": (
        lab("socks5h", "user:wr0ng@", auth=AUTH), HERE, F.PROXY_AUTH, "refuses user and password: invalid user", False),
    "SOCKS5: GSSAPI": (raw("socks5h", socks(b"\5\1")), HERE, F.PROXY_AUTH, "asks for user and password: it", False),
    "http: nobody there": (closed("http"), HERE, F.PROXY_UNREACHABLE, ": connection refused", False),
    "https: nobody there": (closed("https"), HERE, F.PROXY_UNREACHABLE, ": connection refused", False),
    "socks5h: nobody there": (closed("socks5h"), HERE, F.PROXY_UNREACHABLE, ": connection refused", False),
    "forward: nobody there": (closed("http"), PLAIN, F.PROXY_UNREACHABLE, ": connection refused", False),
    "CONNECT: 500": (lab("http", refuse=500), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: 500 Int", False),
    "CONNECT: 502": (lab("http", refuse=502), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: 502 Bad", False),
    "CONNECT: 503": (lab("http", refuse=503), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: 503 Ser", False),
    "CONNECT: 504": (lab("http", refuse=504), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: 504 Gat", False),
    "CONNECT: 403": (lab("http", refuse=403), HERE, F.PROXY_REFUSED, f"refuses to connect to {THERE}: 403", False),
    "CONNECT: 405": (connect_says("405 Not Allowed"), HERE, F.PROXY_REFUSED, "405 Not Allowed; is it a proxy", False),
    "CONNECT: 501": (connect_says("501 Unsupported"), HERE, F.PROXY_REFUSED, "501 Unsupported; is it a proxy", False),
    "CONNECT: 302": (
        connect_says("302 Found", "Location: http://me:s3cret@hotspot.test/login?k=s3cret"), HERE, F.CAPTIVE_PORTAL,
        "answers as a captive portal does: 302 Found, to http://hotspot.test/login; log in with a browser", False),
    "CONNECT: 511": (connect_says("511 Log In"), HERE, F.CAPTIVE_PORTAL, "as a captive portal does: 511", False),
    "CONNECT: target refused": (lab("http"), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: 502", False),
    "SOCKS5: target refused": (lab("socks5h"), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: connection", False),
    "SOCKS5: not allowed": (
        lab("socks5h"), ELSEWHERE, F.PROXY_REFUSED, "refuses to connect to elsewhere.test:443: not allowed by", False),
    "SOCKS5: 1": (refusing(1), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: general SOCKS", False),
    "SOCKS5: 2": (refusing(2), HERE, F.PROXY_REFUSED, f"refuses to connect to {THERE}: not allowed by rul", False),
    "SOCKS5: 3": (refusing(3), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: network unreachable", False),
    "SOCKS5: 4": (refusing(4), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: host unreachable", False),
    "SOCKS5: 5": (refusing(5), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: connection refused", False),
    "SOCKS5: 6": (refusing(6), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: TTL expired", False),
    "SOCKS5: 7": (refusing(7), HERE, F.PROXY_REFUSED, f"refuses to connect to {THERE}: command not supp", False),
    "SOCKS5: 8": (refusing(8), HERE, F.PROXY_REFUSED, f"refuses to connect to {THERE}: address type not", False),
    "SOCKS5: 200": (refusing(200), HERE, F.PROXY_CANNOT_REACH, f"cannot reach {THERE}: SOCKS reply 200", False),
    "SOCKS5: a short refusal": (refusing(4, b""), HERE, F.PROXY_CANNOT_REACH, "host unreachable", False),
    "SOCKS5: malformed": (
        raw("socks5h", socks(b"\5\0", b"\5\0\0\x09\0\0")), HERE, F.PROXY_PROTOCOL, "protocol: a malformed", False),
    "SOCKS5: 302 later": (
        raw("socks5h", socks(b"\5\0", NOT_TLS)), HERE, F.PROXY_PROTOCOL, f"{OTHER} HTTP: write http://ADDRESS", False),
    "SOCKS5: HTTP": (
        raw("socks5h", answering(NOT_TLS)), HERE, F.PROXY_PROTOCOL, f"{OTHER} HTTP: write http://ADDRESS", False),
    "SOCKS5: SOCKS4": (
        raw("socks5h", answering(b"\0\x5b\0\0\0\0\0\0")), HERE, F.PROXY_PROTOCOL, f"{OTHER} SOCKS4", False),
    "CONNECT: SOCKS5": (
        raw("http", answering(b"\x05\xff")), HERE, F.PROXY_PROTOCOL, f"{OTHER} SOCKS5: write socks5h://ADDRESS", False),
    "CONNECT: half a head": (
        raw("http", leaving(lambda sock: sock.sendall(b"HTTP/1.1 200"))), HERE, F.PROXY_CLOSED, CLOSED, False),
    "CONNECT: broken HTTP": (
        raw("http", answering(b"HTTP/1.1 yes\r\n\r\n")), HERE, F.PROXY_PROTOCOL, "speaks another protocol: ", False),
    "https: HTTP": (
        raw("https", answering(NOT_TLS)), HERE, F.PROXY_PROTOCOL, f"{OTHER} HTTP: write http://ADDRESS", False),
    "forward, https: HTTP": (
        raw("https", answering(NOT_TLS)), PLAIN, F.PROXY_PROTOCOL, f"{OTHER} HTTP: write http://ADDRESS", False),
    "SOCKS5: a short answer": (
        raw("socks5h", leaving(lambda sock: sock.sendall(b"\5"))), HERE, F.PROXY_CLOSED, CLOSED, False),
    "SOCKS5: closed after the greeting": (
        raw("socks5h", socks(b"\5\0", then=lambda sock: sock.recv(65536))), HERE, F.PROXY_CLOSED, CLOSED, False),
    "forward: closed": (raw("http", LEAVE), PLAIN, F.CLOSED, CLOSED, True),
    "forward: reset": (raw("http", leaving(reset)), PLAIN, F.RESET, CLOSED, True),
    "SOCKS5: closed after the tunnel, http": (
        raw("socks5h", socks(b"\5\0", GRANTED, then=lambda sock: sock.recv(65536))), PLAIN, F.CLOSED, CLOSED, True),
    "SOCKS5: closed after the tunnel": (
        raw("socks5h", socks(b"\5\0", GRANTED, then=lambda sock: sock.recv(65536))), HERE, F.PROXY_CLOSED,
        f"accepted, then closed the tunnel to {THERE}: it cannot reach it, or TLS is refused there", False),
    "CONNECT: closed after the tunnel": (
        raw("http", tunnelling(LEAVE)), HERE, F.PROXY_CLOSED,
        f"accepted, then closed the tunnel to {THERE}: it cannot reach it, or TLS is refused there", False),
    "CONNECT: reset after the tunnel": (
        raw("http", tunnelling(leaving(reset))), HERE, F.PROXY_CLOSED,
        f"accepted, then closed the tunnel to {THERE}: it cannot reach it, or TLS is refused there", False),
    "CONNECT: 200 with a page": (
        raw("http", answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE)), HERE, F.PROXY_PROTOCOL,
        "answers with an HTML page instead of a tunnel: it is no proxy, or a captive portal", False),
    "CONNECT: target not TLS": (
        raw("http", tunnelling(answering(NOT_TLS))), HERE, F.TLS_MISMATCH,
        "wrong version number: HTTP came through the proxy at URL (--proxy)", False),
    "CONNECT: silence": (raw("http", silence), HERE, F.CONNECT_TIMEOUT, NOTHING, False),
    "SOCKS5: silence": (raw("socks5h", silence), HERE, F.CONNECT_TIMEOUT, NOTHING, False),
    "https: silence": (raw("https", silence), HERE, F.CONNECT_TIMEOUT, NOTHING, False),
    "https: silence after TLS": (raw("https", silence, encrypted=True), HERE, F.CONNECT_TIMEOUT, NOTHING, False),
    "CONNECT: silence in the tunnel": (
        raw("http", tunnelling(silence)), HERE, F.CONNECT_TIMEOUT, "a tunnel to 127.0.0.1:9, and nothing", False),
    **{
        f"{scheme}: {name}": (raw(scheme, script), HERE, failure, detail, False)
        for scheme in ("http", "socks5h", "https")
        for name, script, failure, detail in (
            ("closed", LEAVE, F.PROXY_CLOSED, CLOSED),
            ("closed at once", lambda sock: None, F.PROXY_CLOSED, CLOSED),
            ("reset", leaving(reset), F.PROXY_CLOSED, CLOSED),
            ("an HTML page", answering(PAGE), F.PROXY_PROTOCOL, f"{OTHER} an HTML page"),
            ("SSH", greeting(SSH), F.PROXY_PROTOCOL, f"{OTHER} an SSH server's greeting"),
            ("mail", greeting(b"220 mail.test ESMTP\r\n"), F.PROXY_PROTOCOL, f"{OTHER} a mail or FTP server's"),
            ("garbage", answering(GARBAGE), F.PROXY_PROTOCOL, f"{OTHER} something else"),
        )
    },
    **{
        f"{scheme}: a TLS alert": (
            raw(scheme, answering(ALERT)), HERE, F.PROXY_PROTOCOL, f"{OTHER} a TLS alert: write https://ADDRESS", False)
        for scheme in ("http", "socks5h")
    },
    **{
        f"forward: {name}": (raw("http", answering(data)), PLAIN, F.PROXY_PROTOCOL, f"{OTHER} {what}", True)
        for name, data, what in (
            ("an HTML page", PAGE, "an HTML page"),
            ("SSH", SSH, "an SSH server's greeting"),
            ("a TLS alert", ALERT, "a TLS alert: write https://ADDRESS"),
            ("garbage", GARBAGE, "something else"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("stage", "target", "failure", "detail", "sent"), CASES.values(), ids=CASES.keys())
def test_a_proxy_s_failure_is_called_what_it_is_and_names_the_proxy(
    side: Side,
    stage: Staging,
    target: str,
    failure: Failure,
    detail: str,
    sent: bool,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    with (
        stage(server_tls) as url,
        side.wire(proxy=GivenProxy(url, "--proxy"), verify=client_tls) as exchange,
    ):
        talk = exchange(chat(target))
        called, told = failure_of(talk.send, limits(connect=0.3 if failure is F.CONNECT_TIMEOUT else 5))
        assert called is failure
        shown = parse_proxy(url)
        assert f"the proxy at {shown.url} (--proxy)" in told
        assert detail.replace("URL", shown.url).replace("ADDRESS", shown.address) in told
        assert "s3cret" not in told
        assert "wr0ng" not in told
        assert talk.path.sent is sent


@pytest.mark.parametrize("failure", [Failure.CLOSED, Failure.RESET])
def test_a_server_that_was_reached_over_tls_and_closes_is_no_failure_of_the_proxy(failure: Failure) -> None:
    proxy = parse_proxy("http://127.0.0.1:3128")
    for scheme, blamed in (("https", False), ("http", True)):
        destination = Destination(scheme, "model.test", 443, proxy)
        told = named(WireError(failure, "it said nothing"), Way(proxy, destination, Step.OPEN, b"", after=2.0))
        assert ("accepted, then closed" in told.detail) is blamed


def test_the_variable_that_names_the_proxy_is_told(side: Side) -> None:
    proxy = f"http://user:s3cret@127.0.0.1:{free_port()}"
    with side.wire(environ={"HTTPS_PROXY": proxy}) as exchange:
        _, told = failure_of(exchange(chat(HERE)).send)
    assert told == f"cannot connect to the proxy at {parse_proxy(proxy).url} (HTTPS_PROXY): connection refused"


def test_a_proxy_without_an_address_is_told_from_the_server(side: Side) -> None:
    with side.wire(proxy="http://no-such-proxy.invalid:3128") as exchange:
        failure, told = failure_of(exchange(chat(HERE)).send)
    assert failure in (Failure.NO_SUCH_HOST, Failure.DNS_TEMPORARY)
    assert told == "that of the proxy at http://no-such-proxy.invalid:3128"


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
