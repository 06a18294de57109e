"""What is put on the wire, as the server reads it."""

from __future__ import annotations

import ssl

import pytest

from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import UsageError
from unbroken.lab import Upstream
from wire.sides import Side, failure_of

protocols = pytest.mark.parametrize("encrypted", [False, True], ids=["HTTP/1.1", "HTTP/2"])


@protocols
@pytest.mark.parametrize(
    ("method", "headers", "body", "received"),
    [
        # what is asked for, and some of the headers that the server gets; None: it must not be there
        ("GET", (), b"", {"content-length": None, "transfer-encoding": None}),
        ("POST", (), b"", {"content-length": "0"}),
        ("POST", (), b"abc", {"content-length": "3"}),
        ("POST", ((b"Content-Length", b"99"),), b"abc", {"content-length": "3"}),
        ("POST", ((b"Transfer-Encoding", b"chunked"),), b"abc", {"content-length": "3", "transfer-encoding": None}),
        ("POST", ((b"Host", b"other.test"),), b"", {"host": "other.test"}),
        ("POST", ((b"Connection", b"keep-alive"), (b"X-Own", b"1")), b"", {"x-own": "1"}),
        ("POST", ((b"User-Agent", b"caf\xc3\xa9"),), b"", {}),
    ],
)
def test_is_sent_as_asked(
    side: Side,
    encrypted: bool,
    method: str,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes,
    received: dict[str, str | None],
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    with Upstream(ssl_context=server_tls if encrypted else None) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(Request(method, f"{upstream.origin}/path?query=%20", headers, body))
        talk.send()
        talk.read_all()
        request = upstream.requests[0]
        assert (request.method, request.target, request.body) == (method, "/path?query=%20", body)
        assert {name: request.header(name) for name in received} == received
        if "host" not in received:
            assert request.header("host") == f"127.0.0.1:{upstream.port}"


def test_an_ipv6_host_has_its_brackets(side: Side) -> None:
    with Upstream(host="::1") as upstream, side.wire() as exchange:
        exchange(Request("GET", upstream.origin)).send()
        assert upstream.requests[0].header("host") == f"[::1]:{upstream.port}"
        assert upstream.requests[0].target == "/"


def test_what_http_cannot_carry_is_called_a_bad_request(side: Side) -> None:
    with Upstream() as upstream, side.wire() as exchange:
        talk = exchange(Request("GET", upstream.url, ((b"x-own", b" a space before it"),)))
        assert failure_of(talk.send) == (Failure.BAD_REQUEST, "illegal header value")


def test_a_ca_file_that_cannot_be_used_is_told_before_anything_happens(side: Side) -> None:
    with side.wire(verify="/nowhere.pem") as exchange:
        talk = exchange(Request("GET", "https://127.0.0.1:1"))
        with pytest.raises(UsageError, match="cannot use the CA file"):
            talk.send()
        assert not talk.path.sent
