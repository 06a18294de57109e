"""The caller's own timeouts keep their meaning: silence on the wire; and they are never replayed."""

from __future__ import annotations

import ssl
import time

import pytest

from transports.asking import Way
from unbroken import CallerTimeout
from unbroken.lab import Fault, ScriptedAnswer

PATH = "/chat/completions"


@pytest.mark.parametrize("at", ["before_headers", "after_headers", "after_role", "after_token"])
def test_a_read_timeout_is_raised_in_every_phase(way: Way, serve, at: str) -> None:
    upstream = serve(Fault("stall", at))
    begun = time.monotonic()
    reply = way.post(upstream.url + PATH, timeout=way.library.Timeout(None, read=0.2))
    assert isinstance(reply.error, way.library.ReadTimeout)
    assert isinstance(reply.error.__cause__, CallerTimeout)
    assert 0.15 < time.monotonic() - begun < 2
    assert len(upstream.requests) == 1


def test_a_read_timeout_does_not_count_from_the_beginning(way: Way, serve) -> None:
    upstream = serve(answer=ScriptedAnswer(text=["a"] * 8, gap=0.08))
    reply = way.post(upstream.url + PATH, timeout=way.library.Timeout(None, read=0.4))
    assert reply.error is None
    assert reply.data == upstream.requests[0].sent


def test_a_connect_timeout_is_raised(way: Way, serve, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    upstream = serve(Fault("stall", "handshake"), ssl_context=server_tls)
    reply = way.post(upstream.url + PATH, timeout=way.library.Timeout(None, connect=0.2), verify=client_tls)
    assert isinstance(reply.error, way.library.ConnectTimeout)
    assert upstream.requests == []
