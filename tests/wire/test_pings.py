"""PING on the wire, as servers see it, and what servers do to who sends too many."""

from __future__ import annotations

import ssl
import time

import h2.errors
import h2.events
import msgspec
import pytest

from unbroken.core.actions import CallerTimeouts
from unbroken.core.failures import Failure
from unbroken.lab import CuttingProxy, ScriptedAnswer, Upstream
from unbroken.wire.monitor import Monitor
from wire.http2_server import Http2Peer, React, http2_server
from wire.sides import Side, Talk, chat, failure_of, limits

THINK = 0.9
OFTEN = limits(ping=0.06)


def play(talk: Talk) -> bytes:
    talk.send(OFTEN)
    return talk.read_all(OFTEN)


def strict(allowed: int, offences: int) -> tuple[React, list[int]]:
    """A server that leaves at one PING more than it allows, and how many it had during each request.

    So many requests are not answered; the others are, after a while.
    """
    pings: list[int] = []

    def react(peer: Http2Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.StreamEnded):
            pings.append(0)
            if len(pings) > offences:
                peer.later(THINK, peer.answer)
        elif isinstance(event, h2.events.PingReceived):
            pings[-1] += 1
            if pings[-1] > allowed:
                peer.leave(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    return react, pings


def test_a_server_that_bears_half_as_many(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """As with those that allow ten without data."""
    react, pings = strict(10, offences=1)
    with http2_server(react, server_tls) as server, side.wire(verify=client_tls) as exchange:
        called, told = failure_of(play, exchange(chat(server.url)))
        assert (called, told) == (Failure.TOO_MANY_PINGS, "after GOAWAY ENHANCE_YOUR_CALM")
        for _ in range(2):
            assert play(exchange(chat(server.url))) == b"ok"
    assert pings[0] == 11
    assert all(0 < count <= 10 for count in pings[1:])


def test_a_server_that_bears_hardly_any(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """As with those that allow two in five minutes."""
    react, pings = strict(2, offences=2)
    with http2_server(react, server_tls) as server, side.wire(verify=client_tls) as exchange:
        for _ in range(2):
            assert failure_of(play, exchange(chat(server.url)))[0] is Failure.TOO_MANY_PINGS
        assert play(exchange(chat(server.url))) == b"ok"
        assert pings == [3, 3, 0]


def test_what_a_server_bears_is_remembered_for_the_path(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    react, pings = strict(2, offences=3)
    environ: dict[str, str] = {}
    with (
        http2_server(react, server_tls) as server,
        CuttingProxy() as proxy,
        side.wire(verify=client_tls, environ=environ) as exchange,
    ):
        for _ in range(2):
            failure_of(play, exchange(chat(server.url)))
        environ["https_proxy"] = proxy.url
        assert failure_of(play, exchange(chat(server.url)))[0] is Failure.TOO_MANY_PINGS
        assert pings == [3, 3, 3]


def test_a_goaway_that_leaves_us_out_says_the_same(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    def react(peer: Http2Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.PingReceived):
            peer.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)

    with http2_server(react, server_tls) as server, side.wire(verify=client_tls) as exchange:
        called, told = failure_of(play, exchange(chat(server.url)))
        assert (called, told) == (Failure.TOO_MANY_PINGS, "GOAWAY ENHANCE_YOUR_CALM")


def test_none_while_the_response_flows(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    seldom = limits(ping=0.5)
    answer = ScriptedAnswer(text=["word "] * 60, gap=0.02)
    with Upstream(answer=answer, ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        talk.send(seldom)
        talk.read_all(seldom)
        assert upstream.pings == 0


def test_none_without_a_stream(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with Upstream(ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        play(exchange(chat(upstream.url)))
        before = upstream.pings
        time.sleep(0.4)  # the pause that is meant
        assert (upstream.connections, upstream.pings) == (1, before)


def test_they_do_not_put_off_the_caller_s_own_timeout(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    caller = msgspec.structs.replace(OFTEN, caller=CallerTimeouts(read=0.5))
    with Upstream(answer=ScriptedAnswer(think=60), ssl_context=server_tls) as upstream:
        with side.wire(verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            talk.send(caller)
            assert failure_of(talk.read_until, b"Hello", caller) == (Failure.CALLER_TIMEOUT, "read")
        assert upstream.pings > 1


@pytest.mark.parametrize("side", ["asyncio", "uvloop"], indirect=True)
def test_after_the_end_nothing_is_looked_at_any_more(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the caller has not read it yet."""
    looks: list[float] = []
    due = Monitor.ping_is_due
    monkeypatch.setattr(Monitor, "ping_is_due", lambda self, now: (looks.append(now), due(self, now))[-1])
    with Upstream(ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        talk.send(OFTEN)
        assert upstream.wait_for(lambda: upstream.requests[0].done, timeout=5)
        time.sleep(0.4)  # the pause that is meant
        assert len(looks) < 30
        talk.read_all(OFTEN)


@pytest.mark.parametrize("side", ["asyncio", "uvloop"], indirect=True)
def test_they_go_on_while_the_caller_does_not_read(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    answer = ScriptedAnswer(think=60, think_at="after_role")
    with Upstream(answer=answer, ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        talk.send(OFTEN)
        assert talk.read(OFTEN)
        assert upstream.wait_for(lambda: upstream.pings > 3, timeout=5)
