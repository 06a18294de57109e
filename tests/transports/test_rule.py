"""Under the transports a program receives the bytes of exactly one attempt, or an error of its own library."""

from __future__ import annotations

import dataclasses
import ssl

import anyio
import pytest

from ports import free_port
from transports.asking import CALLS, CHAT, POLICY, WAYS, Way
from unbroken import StreamCut, Unreachable
from unbroken.core.route import RouteRecord
from unbroken.lab import Fault, ScriptedAnswer

BEFORE_OUTPUT = ["before_headers", "after_headers", "after_role"]
all_calls = pytest.mark.parametrize("call", CALLS)


@all_calls
@pytest.mark.parametrize("at", [None, *BEFORE_OUTPUT])
def test_the_bytes_are_those_of_one_attempt(way: Way, serve, call: str, at: str | None) -> None:
    upstream = serve(Fault("rst", at) if at else None)
    path, body = CALLS[call]
    reply = way.post(upstream.origin + path, body)
    assert reply.error is None
    assert reply.status == 200
    assert len(upstream.requests) == (2 if at else 1)
    assert reply.data == upstream.requests[-1].sent
    assert upstream.requests[0].body == upstream.requests[-1].body
    assert len(reply.report.attempts) == len(upstream.requests)
    assert reply.report.replays == len(upstream.requests) - 1
    assert repr(reply.report).startswith("Report(")


@all_calls
def test_after_output_a_cut_is_an_error_of_the_library(way: Way, serve, call: str) -> None:
    upstream = serve(Fault("rst", "after_token"))
    path, body = CALLS[call]
    reply = way.post(upstream.origin + path, body)
    if not body.get("stream", True):  # nothing was shown, so it was asked for again
        assert (reply.error, reply.data) == (None, upstream.requests[-1].sent)
        return
    assert isinstance(reply.error, way.library.ReadError)
    assert isinstance(reply.error.__cause__, StreamCut)
    assert len(upstream.requests) == 1
    assert reply.data == upstream.requests[0].sent


@pytest.mark.parametrize("http2", [True, False])
def test_over_tls_in_either_protocol(
    way: Way, serve, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, http2: bool
) -> None:
    upstream = serve(Fault("rst", "after_role"), ssl_context=server_tls)
    reply = way.post(upstream.url + "/chat/completions", verify=client_tls, http2=http2)
    assert reply.error is None
    assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert reply.data == upstream.requests[-1].sent


def test_the_headers_are_those_of_the_attempt_that_spoke(way: Way, serve) -> None:
    upstream = serve(Fault("fin", "after_role"))
    reply = way.post(upstream.url + "/chat/completions")
    assert reply.headers["x-request-id"] == "req_lab_2"
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_an_end_that_was_not_one_is_seen_through(way: Way, serve) -> None:
    upstream = serve(Fault("clean_end", "after_token"), answer=ScriptedAnswer(framing="close"))
    assert isinstance(way.post(upstream.url + "/chat/completions").error, way.library.ReadError)


def test_the_budget_is_the_policys(way: Way, serve) -> None:
    upstream = serve(*[Fault("rst", "after_role")] * 9)
    reply = way.post(upstream.url + "/chat/completions")
    assert isinstance(reply.error, way.library.ReadError)
    assert len(upstream.requests) == 1 + POLICY.replays_on(RouteRecord())


def test_a_retry_of_the_sdks_own_gets_one_attempt(way: Way, serve) -> None:
    upstream = serve(*[Fault("rst", "after_role")] * 9)
    with_count = {"x-stainless-retry-count": "1"}
    reply = way.request(
        "POST",
        upstream.url + "/chat/completions",
        content=b'{"model": "lab", "messages": [], "stream": true}',
        headers=with_count,
    )
    assert isinstance(reply.error, way.library.ReadError)
    assert len(upstream.requests) == 1


def test_nobody_there_is_a_connect_error(way: Way, serve) -> None:
    upstream = serve(port=free_port())
    upstream.close()
    reply = way.post(upstream.url + "/chat/completions", policy=dataclasses.replace(POLICY, retries=1))
    assert isinstance(reply.error, way.library.ConnectError)
    assert isinstance(reply.error.__cause__, Unreachable)


def test_an_observer_is_told(way: Way, serve) -> None:
    told: list[object] = []
    upstream = serve(Fault("rst", "after_role"))
    way.post(upstream.url + "/chat/completions", on_retry=told.append)
    assert len(told) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.is_async], ids=str)
@pytest.mark.parametrize("own", [True, False], ids=["our wire", "inner"])
def test_under_trio(way: Way, serve, own: bool) -> None:
    upstream = serve(Fault("rst", "after_role"))
    options = {} if own else {"inner": way.library.AsyncHTTPTransport()}

    async def ask() -> bytes:
        async with way.client(way.transport(**options)) as client:
            return (await client.post(upstream.url + "/chat/completions", json=CHAT)).content

    assert anyio.run(ask, backend="trio") == upstream.requests[-1].sent
    assert len(upstream.requests) == 2
