"""Every way in which a network really fails, and what the wire calls it."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import trustme
from wire.servers import RawServer, Script, black_hole, closed_port, read_head, reset, saying, silence
from wire.sides import Side, Talk, chat, failure_of, limits

from unbroken.core.failures import Failure
from unbroken.core.turn import Limits
from unbroken.lab import Answer, CuttingProxy, Fault, Upstream

Scene = tuple[str, dict[str, Any]]
"""A base URL, and options of the wire."""

Staging = Callable[[ssl.SSLContext], AbstractContextManager[Scene]]


# What happens


def plain(fault: Fault, answer: Answer | None = None) -> Staging:
    return _upstream(faults=[fault], answer=answer)


def tls(fault: Fault, answer: Answer | None = None) -> Staging:
    return _upstream(encrypted=True, http2=False, faults=[fault], answer=answer)


def h2(fault: Fault, answer: Answer | None = None) -> Staging:
    return _upstream(encrypted=True, faults=[fault], answer=answer)


def _upstream(*, encrypted: bool = False, **options: Any) -> Staging:
    @contextmanager
    def stage(context: ssl.SSLContext) -> Iterator[Scene]:
        with Upstream(ssl_context=context if encrypted else None, **options) as upstream:
            yield upstream.url, {}

    return stage


def raw(script: Script, scheme: str = "http", *, encrypted: bool = False) -> Staging:
    @contextmanager
    def stage(context: ssl.SSLContext) -> Iterator[Scene]:
        with RawServer(script, context if encrypted else None) as server:
            yield f"{scheme}://127.0.0.1:{server.port}", {}

    return stage


def in_the_handshake(how: Callable[[socket.socket], None]) -> Staging:
    return raw(lambda sock: (sock.recv(65536), how(sock), None)[-1], "https")


def shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    silence(sock)


@contextmanager
def nobody(context: ssl.SSLContext) -> Iterator[Scene]:
    yield f"http://127.0.0.1:{closed_port()}", {}


@contextmanager
def syn_black_hole(context: ssl.SSLContext) -> Iterator[Scene]:
    with black_hole() as port:
        yield f"http://127.0.0.1:{port}", {}


def unresolvable(code: int) -> Staging:
    def getaddrinfo(*args: object, **options: object) -> None:
        raise socket.gaierror(code, "as the resolver puts it")

    @contextmanager
    def stage(context: ssl.SSLContext) -> Iterator[Scene]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", getaddrinfo)
            yield "http://name.test", {}

    return stage


@contextmanager
def path_that_dies(context: ssl.SSLContext) -> Iterator[Scene]:
    with Upstream(ssl_context=context, answer=Answer(think=60)) as upstream:
        with CuttingProxy(black_hole_after=0.2) as proxy:
            yield upstream.url, {"proxy": proxy.url}


def certificate(
    host: str = "127.0.0.1", *, expired: bool = False, authority: trustme.CA | None = None
) -> Callable[[ssl.SSLContext], AbstractContextManager[Scene]]:
    @contextmanager
    def stage(context: ssl.SSLContext) -> Iterator[Scene]:
        issuer = authority or trustme.CA()
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(host, not_after=yesterday if expired else None).configure_cert(server)
        trusting = ssl.create_default_context()
        if authority:
            issuer.configure_trust(trusting)
        with Upstream(ssl_context=server) as upstream:
            yield upstream.url, {"verify": trusting}

    return stage


EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
TO_THE_CLOSE = Answer(framing="close")
PING = limits(ping=0.1, ping_timeout=0.3)
F = Failure

CASES: dict[str, tuple[Staging, Limits, Failure, str, bool]] = {
    # name: what happens, the limits, what it is called, its detail, whether the request was sent
    "refused": (nobody, limits(), F.CONNECTION_REFUSED, "", False),
    "no such name": (unresolvable(socket.EAI_NONAME), limits(), F.NO_SUCH_HOST, "", False),
    "resolver down": (unresolvable(socket.EAI_AGAIN), limits(), F.DNS_TEMPORARY, "", False),
    "connect: black hole": (syn_black_hole, limits(connect=0.2), F.CONNECT_TIMEOUT, "0.2 s", False),
    "handshake: silence": (raw(silence, "https"), limits(connect=0.2), F.CONNECT_TIMEOUT, "0.2 s", False),
    "handshake: RST": (in_the_handshake(reset), limits(), F.RESET, "", False),
    "handshake: FIN": (in_the_handshake(shut), limits(), F.TLS_FAILED, "closed by the other side", False),
    "handshake: not TLS": (in_the_handshake(lambda sock: sock.sendall(EMPTY)), limits(), F.TLS_MISMATCH, "wrong version number", False),
    "not HTTP": (raw(saying(b"220 mail.test ESMTP\r\n\r\n")), limits(), F.BROKEN_FRAMING, "illegal status line", True),
    "headers: RST": (plain(Fault("rst", "before_headers")), limits(), F.RESET, "", True),
    "headers: RST, TLS": (tls(Fault("rst", "before_headers")), limits(), F.RESET, "", True),
    "headers: RST, HTTP/2": (h2(Fault("rst", "before_headers")), limits(), F.RESET, "", True),
    "headers: FIN": (plain(Fault("fin", "before_headers")), limits(), F.CLOSED, "", True),
    "headers: FIN, TLS": (tls(Fault("fin", "before_headers")), limits(), F.CLOSED, "TLS ended without close_notify", True),
    "headers: FIN, HTTP/2": (h2(Fault("fin", "before_headers")), limits(), F.CLOSED, "TLS ended without close_notify", True),
    "headers: half": (raw(saying(b"HTTP/1.1 200 OK\r\ncontent-")), limits(), F.CLOSED, "", True),
    "headers: two lengths": (
        raw(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")),
        limits(),
        F.BROKEN_FRAMING,
        "conflicting Content-Length headers",
        True,
    ),
    "headers: silence": (plain(Fault("stall", "before_headers")), limits(idle=0.2), F.IDLE_TIMEOUT, "0.2 s", True),
    "body: RST at once": (plain(Fault("rst", "after_headers")), limits(), F.RESET, "", True),
    "body: RST": (plain(Fault("rst", "after_token")), limits(), F.RESET, "", True),
    "body: RST, TLS": (tls(Fault("rst", "after_token")), limits(), F.RESET, "", True),
    "body: RST, HTTP/2": (h2(Fault("rst", "after_token")), limits(), F.RESET, "", True),
    "body: truncated chunk": (plain(Fault("truncated_chunk", "after_token")), limits(), F.TRUNCATED, "", True),
    "body: short of its length": (plain(Fault("short_length", "after_token")), limits(), F.TRUNCATED, "", True),
    "body: FIN between chunks": (plain(Fault("fin", "after_token")), limits(), F.TRUNCATED, "", True),
    "body: FIN, TLS": (tls(Fault("fin", "after_token")), limits(), F.CLOSED, "TLS ended without close_notify", True),
    "body: FIN, HTTP/2": (h2(Fault("fin", "after_token", close_notify=True)), limits(), F.CLOSED, "", True),
    "body: to the close, no close_notify": (
        tls(Fault("fin", "after_done"), TO_THE_CLOSE), limits(), F.CLOSED, "TLS ended without close_notify", True
    ),
    "body: bad chunk": (plain(Fault("bad_chunk", "after_token")), limits(), F.BROKEN_FRAMING, "illegal chunk header", True),
    "body: silence": (plain(Fault("stall", "after_token")), limits(idle=0.2), F.IDLE_TIMEOUT, "0.2 s", True),
    "body: silence, HTTP/2": (h2(Fault("stall", "after_token")), limits(idle=0.2), F.IDLE_TIMEOUT, "0.2 s", True),
    "stream: INTERNAL_ERROR": (h2(Fault("rst_stream", "after_token")), limits(), F.STREAM_RESET, "INTERNAL_ERROR", True),
    "stream: NO_ERROR": (h2(Fault("rst_stream", "after_token", code=0)), limits(), F.STREAM_RESET, "NO_ERROR", True),
    "stream: refused": (h2(Fault("refused_stream", "before_headers")), limits(), F.NOT_PROCESSED, "REFUSED_STREAM", True),
    "GOAWAY that leaves us out": (
        h2(Fault("goaway", "before_headers", last_stream_id=0)), limits(), F.NOT_PROCESSED, "GOAWAY NO_ERROR", True
    ),
    "GOAWAY and close": (
        h2(Fault("goaway", "after_token", code=11, then="close")),
        limits(),
        F.CLOSED,
        "after GOAWAY ENHANCE_YOUR_CALM",
        True,
    ),
    "PING unanswered": (h2(Fault("no_ping_ack", "after_role")), PING, F.DEAD_PATH, "0.3 s", True),
    "PING into a black hole": (path_that_dies, PING, F.DEAD_PATH, "0.3 s", True),
    "certificate: other authority": (certificate(), limits(), F.CERTIFICATE, "unable to get local issuer", False),
    "certificate: other host": (
        certificate("other.test", authority=trustme.CA()), limits(), F.CERTIFICATE, "IP address mismatch", False
    ),
    "certificate: expired": (
        certificate(expired=True, authority=trustme.CA()), limits(), F.CERTIFICATE, "certificate has expired", False
    ),
}  # fmt: skip


def play(talk: Talk, limits: Limits) -> bytes:
    talk.send(limits)
    return talk.read_all(limits)


@pytest.mark.parametrize(("stage", "limits", "failure", "detail", "sent"), CASES.values(), ids=CASES.keys())
def test_is_called_what_it_is_and_leaves_the_exchange_dead(
    side: Side,
    stage: Staging,
    limits: Limits,
    failure: Failure,
    detail: str,
    sent: bool,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    with stage(server_tls) as (url, options), side.wire(**{"verify": client_tls, **options}) as exchange:
        talk = exchange(chat(url))
        called, told = failure_of(play, talk, limits)
        assert called is failure
        assert detail in told
        assert bool(detail) == bool(told)
        assert talk.path.sent is sent
        assert failure_of(talk.read) == (called, told)
        talk.close()
        talk.close()
        assert failure_of(talk.read) == (called, told)


def test_a_deadline_ends_the_wait_whatever_happens(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    answer = Answer(think=60)
    for context in (None, server_tls):
        with Upstream(ssl_context=context, answer=answer) as upstream, side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            talk.send()
            now = time.monotonic()
            within = limits(until=now + 0.3, ping=0.1)
            assert failure_of(talk.read_until, b"Hello", within)[0] is Failure.DEADLINE
            assert 0.3 <= time.monotonic() - now < 0.5


def test_a_body_to_the_close_ends_cleanly_after_close_notify(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    fault = Fault("fin", "after_done", close_notify=True)
    with Upstream(faults=[fault], answer=TO_THE_CLOSE, ssl_context=server_tls, http2=False) as upstream:
        with side.wire(verify=client_tls) as exchange:
            assert play(exchange(chat(upstream.url)), limits()) == upstream.requests[0].sent


def test_a_context_that_takes_a_cut_for_an_end_is_not_believed(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    client_tls.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # as Python sets it by default
    with Upstream(
        faults=[Fault("fin", "after_token")], answer=TO_THE_CLOSE, ssl_context=server_tls, http2=False
    ) as upstream:
        with side.wire(verify=client_tls) as exchange:
            assert failure_of(play, exchange(chat(upstream.url)), limits())[0] is Failure.CLOSED


def test_answered_pings_tell_the_round_trip_and_keep_the_idle_limit_from_passing(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(answer=Answer(think=1.0), ssl_context=server_tls) as upstream:
        with side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            assert talk.path.round_trip is None
            assert play(talk, limits(idle=0.4, ping=0.1)) == upstream.requests[0].sent
            assert 0 < talk.path.round_trip < 0.1
    assert upstream.pings >= 5


def test_a_graceful_goaway_lets_the_running_turn_finish_and_ends_the_connection_after_it(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(faults=[Fault("goaway", "after_token")], ssl_context=server_tls) as upstream:
        with side.wire(verify=client_tls) as exchange:
            for number in range(2):
                assert play(exchange(chat(upstream.url)), limits()) == upstream.requests[number].sent
    assert upstream.connections == 2


def test_a_pause_of_the_reader_is_no_silence_of_the_network(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Whoever takes long over an event finds the next one there, and no limit passed."""
    hasty = limits(idle=0.2, ping=0.05, ping_timeout=0.1)
    with Upstream(answer=Answer(think=0.1, think_at="after_role"), ssl_context=server_tls) as upstream:
        with side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            talk.send(hasty)
            talk.read_until(b"Hello", hasty)
            assert upstream.wait_for(lambda: upstream.requests[0].done, timeout=5)
            time.sleep(0.3)  # the pause that is meant
            talk.read_all(hasty)


def test_a_stranger_who_reads_the_head_and_leaves(side: Side) -> None:
    with RawServer(lambda sock: (read_head(sock), None)[-1]) as server, side.wire() as exchange:
        assert failure_of(exchange(chat(server.url)).send)[0] in (Failure.CLOSED, Failure.RESET)
