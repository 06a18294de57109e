"""Every way in which a network really fails, and what the wire calls it."""

from __future__ import annotations

import datetime
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest
import trustme

from ports import free_port
from timing import Control
from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from wire.servers import RawServer, Script, black_hole, read_head, reset, saying, silence
from wire.sides import PATIENT, Side, Talk, chat, failure_of, limits

Scene = tuple[str, dict[str, Any]]
"""A base URL, and options of the wire."""

Staging = Callable[[ssl.SSLContext], AbstractContextManager[Scene]]


# What happens


def plain(fault: Fault, answer: ScriptedAnswer | None = None) -> Staging:
    return _upstream(faults=[fault], answer=answer)


def tls(fault: Fault, answer: ScriptedAnswer | None = None) -> Staging:
    return _upstream(encrypted=True, http2=False, faults=[fault], answer=answer)


def h2(fault: Fault, answer: ScriptedAnswer | None = None) -> Staging:
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
    yield f"http://127.0.0.1:{free_port()}", {}


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
    with (
        Upstream(ssl_context=context, answer=ScriptedAnswer(think=60)) as upstream,
        CuttingProxy(black_hole_after=0.2) as proxy,
    ):
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
TO_THE_CLOSE = ScriptedAnswer(framing="close")
PING = limits(idle=0.5, ping=0.1, ping_timeout=math.inf)
F = Failure


class Case(NamedTuple):
    """What happens, what it is called, and a part of the detail that is told."""

    stage: Staging
    failure: Failure
    detail: str = ""
    limits: Limits = PATIENT
    sent: bool = True


CASES = {
    "refused": Case(nobody, F.CONNECTION_REFUSED, sent=False),
    "no such name": Case(unresolvable(socket.EAI_NONAME), F.NO_SUCH_HOST, sent=False),
    "resolver down": Case(unresolvable(socket.EAI_AGAIN), F.DNS_TEMPORARY, sent=False),
    "connect: black hole": Case(syn_black_hole, F.CONNECT_TIMEOUT, "0.2 s", limits=limits(connect=0.2), sent=False),
    "handshake: silence": Case(
        raw(silence, "https"), F.CONNECT_TIMEOUT, "0.2 s", limits=limits(connect=0.2), sent=False
    ),
    "handshake: RST": Case(in_the_handshake(reset), F.RESET, sent=False),
    "handshake: FIN": Case(in_the_handshake(shut), F.TLS_FAILED, "closed by the other side", sent=False),
    "handshake: not TLS": Case(
        in_the_handshake(lambda sock: sock.sendall(EMPTY)), F.TLS_MISMATCH, "wrong version number", sent=False
    ),
    "not HTTP": Case(raw(saying(b"220 mail.test ESMTP\r\n\r\n")), F.BROKEN_FRAMING, "expected HTTP"),
    "headers: RST": Case(plain(Fault("rst", "before_headers")), F.RESET),
    "headers: RST, TLS": Case(tls(Fault("rst", "before_headers")), F.RESET),
    "headers: RST, HTTP/2": Case(h2(Fault("rst", "before_headers")), F.RESET),
    "headers: FIN": Case(plain(Fault("fin", "before_headers")), F.CLOSED),
    "headers: FIN, TLS": Case(tls(Fault("fin", "before_headers")), F.CLOSED, "without close_notify"),
    "headers: FIN, HTTP/2": Case(h2(Fault("fin", "before_headers")), F.CLOSED, "without close_notify"),
    "headers: half": Case(raw(saying(b"HTTP/1.1 200 OK\r\ncontent-")), F.CLOSED),
    "headers: two lengths": Case(
        raw(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")),
        F.BROKEN_FRAMING,
        "duplicate Content-Length",
    ),
    "headers: silence": Case(plain(Fault("stall", "before_headers")), F.IDLE_TIMEOUT, "0.2 s", limits=limits(idle=0.2)),
    "body: RST at once": Case(plain(Fault("rst", "after_headers")), F.RESET),
    "body: RST": Case(plain(Fault("rst", "after_token")), F.RESET),
    "body: RST, TLS": Case(tls(Fault("rst", "after_token")), F.RESET),
    "body: RST, HTTP/2": Case(h2(Fault("rst", "after_token")), F.RESET),
    "body: truncated chunk": Case(plain(Fault("truncated_chunk", "after_token")), F.TRUNCATED),
    "body: short of its length": Case(plain(Fault("short_length", "after_token")), F.TRUNCATED),
    "body: FIN between chunks": Case(plain(Fault("fin", "after_token")), F.TRUNCATED),
    "body: FIN, TLS": Case(tls(Fault("fin", "after_token")), F.CLOSED, "without close_notify"),
    "body: FIN, HTTP/2": Case(h2(Fault("fin", "after_token", close_notify=True)), F.CLOSED),
    "body: to the close, no close_notify": Case(
        tls(Fault("fin", "after_done"), TO_THE_CLOSE), F.CLOSED, "without close_notify"
    ),
    "body: bad chunk": Case(
        plain(Fault("bad_chunk", "after_token")), F.BROKEN_FRAMING, "invalid character in chunk size"
    ),
    "body: silence": Case(plain(Fault("stall", "after_token")), F.IDLE_TIMEOUT, "0.2 s", limits=limits(idle=0.2)),
    "body: silence, HTTP/2": Case(h2(Fault("stall", "after_token")), F.IDLE_TIMEOUT, "0.2 s", limits=limits(idle=0.2)),
    "stream: INTERNAL_ERROR": Case(h2(Fault("rst_stream", "after_token")), F.STREAM_RESET, "INTERNAL_ERROR"),
    "stream: NO_ERROR": Case(h2(Fault("rst_stream", "after_token", code=0)), F.STREAM_RESET, "NO_ERROR"),
    "stream: refused": Case(h2(Fault("refused_stream", "before_headers")), F.NOT_PROCESSED, "REFUSED_STREAM"),
    "GOAWAY that leaves us out": Case(
        h2(Fault("goaway", "before_headers", last_stream_id=0)), F.NOT_PROCESSED, "GOAWAY NO_ERROR"
    ),
    "GOAWAY and close": Case(
        h2(Fault("goaway", "after_token", code=11, then="close")), F.CLOSED, "after GOAWAY ENHANCE_YOUR_CALM"
    ),
    "PING unanswered": Case(h2(Fault("no_ping_ack", "after_role")), F.IDLE_TIMEOUT, "0.5 s", limits=PING),
    "PING into a black hole": Case(path_that_dies, F.IDLE_TIMEOUT, "0.5 s", limits=PING),
    "certificate: other authority": Case(certificate(), F.CERTIFICATE, "unable to get local issuer", sent=False),
    "certificate: other host": Case(
        certificate("other.test", authority=trustme.CA()), F.CERTIFICATE, "IP address mismatch", sent=False
    ),
    "certificate: expired": Case(
        certificate(expired=True, authority=trustme.CA()), F.CERTIFICATE, "certificate has expired", sent=False
    ),
}


def play(talk: Talk, limits: Limits) -> bytes:
    talk.send(limits)
    return talk.read_all(limits)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_is_called_what_it_is_and_leaves_the_exchange_dead(
    side: Side, case: Case, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with case.stage(server_tls) as (url, options), side.wire(**{"verify": client_tls, **options}) as exchange:
        talk = exchange(chat(url))
        called, told = failure_of(play, talk, case.limits)
        assert called is case.failure
        assert case.detail in told
        assert bool(case.detail) == bool(told)
        assert talk.path.sent is case.sent
        assert failure_of(talk.read) == (called, told)
        talk.close()
        talk.close()
        assert failure_of(talk.read) == (called, told)


@pytest.mark.timing
def test_a_deadline_ends_the_wait_whatever_happens(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, promptly: Control
) -> None:
    answer = ScriptedAnswer(think=60)
    for context in (None, server_tls):
        with Upstream(ssl_context=context, answer=answer) as upstream, side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            talk.send()
            now = time.monotonic()
            within = limits(until=now + 0.3, ping=0.1)
            assert failure_of(talk.read_until, b"Hello", within)[0] is Failure.DEADLINE
            assert time.monotonic() - now >= 0.3
            promptly(now, within=0.5)


def test_a_body_to_the_close_ends_cleanly_after_close_notify(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    fault = Fault("fin", "after_done", close_notify=True)
    with (
        Upstream(faults=[fault], answer=TO_THE_CLOSE, ssl_context=server_tls, http2=False) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        assert play(exchange(chat(upstream.url)), limits()) == upstream.requests[0].sent


def test_a_context_that_takes_a_cut_for_an_end_is_not_believed(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    client_tls.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # as Python sets it by default
    with (
        Upstream(
            faults=[Fault("fin", "after_token")], answer=TO_THE_CLOSE, ssl_context=server_tls, http2=False
        ) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        assert failure_of(play, exchange(chat(upstream.url)), limits())[0] is Failure.CLOSED


def test_answered_pings_tell_the_round_trip_and_keep_the_idle_limit_from_passing(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(answer=ScriptedAnswer(think=1.4), ssl_context=server_tls) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        assert talk.path.round_trip is None
        assert play(talk, limits(idle=1, ping=0.1)) == upstream.requests[0].sent
        assert 0 < talk.path.round_trip < 1
    assert upstream.pings >= 5


def test_a_graceful_goaway_lets_the_running_turn_finish_and_ends_the_connection_after_it(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(faults=[Fault("goaway", "after_token")], ssl_context=server_tls) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        for number in range(2):
            assert play(exchange(chat(upstream.url)), limits()) == upstream.requests[number].sent
    assert upstream.connections == 2


def test_a_pause_of_the_reader_is_no_silence_of_the_network(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Whoever takes long over an event finds the next one there, and no limit passed."""
    hasty = limits(idle=0.4, ping=0.1, ping_timeout=0.3)
    with (
        Upstream(answer=ScriptedAnswer(think=0.1, think_at="after_role"), ssl_context=server_tls) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        talk.send(hasty)
        talk.read_until(b"Hello", hasty)
        assert upstream.wait_for(lambda: upstream.requests[0].done, timeout=5)
        time.sleep(0.8)  # the pause that is meant
        talk.read_all(hasty)


def test_a_stranger_who_reads_the_head_and_leaves(side: Side) -> None:
    with RawServer(lambda sock: (read_head(sock), None)[-1]) as server, side.wire() as exchange:
        assert failure_of(exchange(chat(server.url)).send)[0] in (Failure.CLOSED, Failure.RESET)
