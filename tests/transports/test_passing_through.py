"""What is not a generation call with its body in memory goes through the library's own transport, untouched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from transports.asking import Way
from unbroken.lab import Fault

BODY = b'{"model": "lab", "messages": [], "stream": true}'


def pieces() -> Iterator[bytes]:
    yield BODY[:10]
    yield BODY[10:]


async def pieces_async() -> AsyncIterator[bytes]:
    for piece in pieces():
        yield piece


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/models"), ("POST", "/embeddings"), ("GET", "/chat/completions"), ("POST", "/files"), ("DELETE", "/x")],
)
def test_other_requests_get_one_attempt_and_no_report(way: Way, serve, method: str, path: str) -> None:
    upstream = serve(Fault("rst", "before_headers"))
    reply = way.request(method, upstream.url + path, content=BODY)
    assert isinstance(reply.error, way.library.ReadError | way.library.RemoteProtocolError)
    reply = way.request(method, upstream.url + path, content=BODY)
    assert reply.error is None
    assert reply.report is None
    assert reply.data == upstream.requests[-1].sent
    assert len(upstream.requests) == 2


def test_a_body_that_is_not_in_memory_is_sent_once(way: Way, serve) -> None:
    upstream = serve(None, Fault("rst", "after_role"))
    for expected in (None, way.library.ReadError):
        content = pieces_async() if way.is_async else pieces()
        reply = way.request("POST", upstream.url + "/chat/completions", content=content)
        assert upstream.requests[-1].body == BODY
        assert reply.report is None
        assert reply.error is None if expected is None else isinstance(reply.error, expected)
    assert len(upstream.requests) == 2


def test_redirects_are_handed_on(way: Way, serve) -> None:
    upstream = serve(Fault("status", "before_headers", status=307, headers={"location": "/elsewhere"}, body=b""))
    reply = way.request("POST", upstream.url + "/chat/completions", content=BODY)
    assert reply.status == 307
    assert reply.headers["location"] == "/elsewhere"
    assert len(upstream.requests) == 1


def test_an_unknown_scheme_is_the_librarys_to_refuse(way: Way) -> None:
    error = way.request("POST", "ftp://lab/v1/chat/completions", content=BODY).error
    assert isinstance(error, way.library.UnsupportedProtocol)
