"""The wire through a real v2ray: what its idle timer does to a turn, and that PING keeps the turn from it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from real.fixtures import CONN_IDLE, THINK
from real.v2ray import V2Ray
from timing import Control
from unbroken.core.failures import Failure, Row
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from wire.sides import SIDES, Side, chat, failure_of, limits, open_side

pytestmark = pytest.mark.slow

THINKING = ScriptedAnswer(think=THINK)


@pytest.fixture(scope="module", params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with open_side(request.param) as opened:
        yield opened


by_both = pytest.mark.parametrize("url", ["http_url", "socks_url"], ids=["CONNECT", "SOCKS5"])


def play(talk: Any, ping: float) -> bytes:
    talk.send(limits(idle=60, ping=ping))
    return talk.read_all(limits(idle=60, ping=ping))


@by_both
def test_without_ping_the_turn_is_cut_while_the_model_thinks(
    side: Side, url: str, v2ray: V2Ray, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Upstream(answer=THINKING, ssl_context=server_tls) as upstream,
        side.wire(proxy=getattr(v2ray, url), verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        started = time.monotonic()
        failure, _ = failure_of(play, talk, 0)
        assert failure is Failure.CLOSED
        assert failure.row is Row.LOST
        assert CONN_IDLE * 0.9 < time.monotonic() - started < THINK
        assert talk.path.sent


@by_both
def test_with_ping_it_completes(
    side: Side, url: str, v2ray: V2Ray, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Upstream(answer=THINKING, ssl_context=server_tls) as upstream:
        with side.wire(proxy=getattr(v2ray, url), verify=client_tls) as exchange:
            talk = exchange(chat(upstream.url))
            assert play(talk, 0.5) == upstream.requests[0].sent
            assert talk.path.round_trip > 0
        assert upstream.wait_for(lambda: upstream.requests[0].done, timeout=5)


@by_both
def test_cancelling_reaches_the_server_at_once(
    side: Side,
    url: str,
    v2ray: V2Ray,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    promptly: Control,
) -> None:
    with (
        Upstream(faults=[Fault("stall", "before_headers")], ssl_context=server_tls) as upstream,
        side.wire(proxy=getattr(v2ray, url), verify=client_tls) as exchange,
    ):
        pending = exchange(chat(upstream.url)).start_sending()
        assert upstream.wait_for(lambda: upstream.requests, timeout=5)
        cancelled_at = time.monotonic()
        pending.cancel()
        assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=5)
        promptly(cancelled_at)
