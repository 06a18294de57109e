"""What is accepted of a response over HTTP/1.1 and what is refused: the table. Each row is fed whole, byte by byte and
with bytes after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import WireError
from unbroken.wire.http1 import MAX_HEAD, MAX_TRAILERS, Http1
from unbroken.wire.requests import Destination, request_head

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"content-length: 2\r\n\r\nok"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

ACCEPTED: dict[str, tuple[bytes, bytes, bool]] = {
    # name: the response, its body, whether the connection serves again
    "length": (OK + TWO, b"ok", True),
    "chunks": (CHUNKED + b"2\r\nok\r\n3;x=y\r\nand\r\n0\r\n\r\n", b"okand", True),
    "chunks, padded size": (CHUNKED + b"2  \r\nok\r\n0\r\n\r\n", b"ok", True),
    "chunks, trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx: 1\r\n\r\n", b"ok", True),
    "chunks, upper case": (OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", b"", True),
    "bare LF": (b"HTTP/1.1 200 OK\nx: 1\ncontent-length: 2\n\nok", b"ok", True),  # RFC 9112, section 2.2
    "folded field": (OK + b"x: 1\r\n  2\r\n" + TWO, b"ok", True),  # RFC 9112, section 5.2
    "both lengths": (  # RFC 9112, section 6.3: Transfer-Encoding overrides
        OK + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + TWO, b"ok", False),
    "HTTP/1.0, keep-alive": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + TWO, b"ok", True),
    "HTTP/1.0, chunks": (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", False),
    "connection: close": (OK + b"connection: close\r\n" + TWO, b"ok", False),
    "no reason": (b"HTTP/1.1 200\r\n" + TWO, b"ok", True),
    "empty line before": (b"\r\n" + OK + TWO, b"ok", True),  # RFC 9112, section 2.2
    "informational": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK + TWO, b"ok", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified, with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"", True),
    "bytes over 127 in a value": (OK + b"x: caf\xe9\r\n" + TWO, b"ok", True),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    # name: the response, a part of what is told
    "not HTTP": (b"220 mail.test ESMTP\r\n", "expected HTTP"),
    "a version that does not exist": (b"HTTP/1.2 200 OK\r\n", "version"),
    "a status of two digits": (b"HTTP/1.1 99 OK\r\n", "status"),
    "another protocol": (OK.replace(b"200 OK", b"101 Switching") + b"\r\n", "not asked for"),
    "two equal lengths": (OK + b"content-length: 2\r\n" + TWO, "duplicate"),  # RFC 9110, section 8.6: may be refused
    "two other lengths": (OK + b"content-length: 3\r\n" + TWO, "duplicate"),
    "a list of lengths": (OK + b"content-length: 2, 2\r\n\r\nok", "Content-Length"),
    "a negative length": (OK + b"content-length: -2\r\n\r\nok", "Content-Length"),
    "a length with a sign": (OK + b"content-length: +2\r\n\r\nok", "Content-Length"),
    "a length beyond all bounds": (OK + b"content-length: 99999999999999999999\r\n\r\nok", "Content-Length"),
    "a coding that nobody reads": (OK + b"transfer-encoding: gzip\r\n\r\nok", "transfer coding"),
    "codings": (OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "transfer coding"),
    "chunked twice": (OK + b"transfer-encoding: chunked\r\n" + CHUNKED.removeprefix(OK), "transfer coding"),
    "a space before the colon": (OK + b"x : 1\r\n" + TWO, "header"),  # RFC 9112, section 5.1
    "a field without a name": (OK + b": 1\r\n" + TWO, "header"),
    "a field without a colon": (OK + b"junk\r\n" + TWO, "header"),
    "NUL in a value": (OK + b"x: a\0b\r\n" + TWO, "header value"),  # RFC 9110, section 5.5
    "CR in a value": (OK + b"x: a\rb\r\n" + TWO, "header value"),
    "bare LF in chunks": (CHUNKED + b"2\nok\n0\n\n", "chunk size"),
    "a chunk size that is none": (CHUNKED + b"zz\r\nok\r\n", "chunk size"),
    "a chunk longer than its size": (CHUNKED + b"2\r\nokX\r\n", "after chunk data"),
    "a head without end": (OK + b"x: " + b"a" * MAX_HEAD, "head of the response"),
    "trailers without end": (CHUNKED + b"0\r\n" + b"x: %b\r\n" % (b"a" * 1000) * (MAX_TRAILERS // 500), "trailers"),
}

CUT: dict[str, tuple[bytes, Failure]] = {
    # name: what came before the end of the connection, and what that is called
    "nothing": (b"", Failure.CLOSED),
    "half a head": (OK + b"x: 1\r\n", Failure.CLOSED),
    "only informational": (b"HTTP/1.1 100 Continue\r\n\r\n", Failure.CLOSED),
    "short of the length": (OK + b"content-length: 3\r\n\r\nok", Failure.TRUNCATED),
    "between chunks": (CHUNKED + b"2\r\nok\r\n", Failure.TRUNCATED),
    "in a chunk": (CHUNKED + b"5\r\nok", Failure.TRUNCATED),
    "before the last line": (CHUNKED + b"2\r\nok\r\n0\r\n", Failure.TRUNCATED),
}


def asked(method: str = "GET") -> Http1:
    """A connection on which a request was sent."""
    http = Http1()
    request = Request(method, "http://test/")
    http.send_request(request_head(request, Destination.of(request, None)))
    while http.data_to_send():
        pass
    return http


def whole(http: Http1, data: bytes) -> None:
    http.receive(data)


def byte_by_byte(http: Http1, data: bytes) -> None:
    for at in range(len(data)):
        http.receive(data[at : at + 1])


feeds = pytest.mark.parametrize("feed", [whole, byte_by_byte])
Feed = Callable[[Http1, bytes], None]


@feeds
@pytest.mark.parametrize(("response", "body", "again"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(response: bytes, body: bytes, again: bool, feed: Feed) -> None:
    http = asked()
    feed(http, response)
    assert http.head is not None
    assert (http.ended, http.take(), http.reusable) == (True, body, again)


@feeds
@pytest.mark.parametrize(("response", "body", "again"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_more_than_the_response_is_left_alone_and_the_connection_not_used_again(
    response: bytes, body: bytes, again: bool, feed: Feed
) -> None:
    http = asked()
    feed(http, response + b"more")
    assert (http.ended, http.take(), http.reusable) == (True, body, False)


@feeds
@pytest.mark.parametrize(("response", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(response: bytes, words: str, feed: Feed) -> None:
    http = asked()
    with pytest.raises(WireError, match=words) as caught:
        feed(http, response)
    assert caught.value.failure is Failure.BROKEN_FRAMING
    assert not http.ended
    assert not http.reusable


@feeds
@pytest.mark.parametrize(("came", "failure"), CUT.values(), ids=CUT.keys())
def test_cut(came: bytes, failure: Failure, feed: Feed) -> None:
    http = asked()
    feed(http, came)
    with pytest.raises(WireError) as caught:
        http.receive_eof()
    assert caught.value.failure is failure


@feeds
def test_a_body_without_a_length_ends_with_the_connection(feed: Feed) -> None:
    http = asked()
    feed(http, OK + b"\r\nall of it")
    assert (http.take(), http.ended) == (b"all of it", False)
    http.receive_eof()
    assert (http.take(), http.ended, http.reusable) == (b"", True, False)


@pytest.mark.parametrize("length", [b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n"])
def test_a_head_that_was_asked_for_has_no_body(length: bytes) -> None:
    http = asked("HEAD")
    http.receive(OK + length + b"\r\n")
    assert (http.ended, http.take(), http.reusable) == (True, b"", True)
    http.receive(b"though one came")
    assert (http.take(), http.reusable) == (b"", False)


def test_a_folded_field_keeps_its_words() -> None:
    http = asked()
    http.receive(OK + b"x: 1\r\n  2\r\n" + TWO)
    assert http.head is not None
    assert http.head.fields["x"].split() == ["1", "2"]


def test_what_came_before_a_failure_can_be_taken() -> None:
    http = asked()
    with pytest.raises(WireError):
        http.receive(CHUNKED + b"2\r\nok\r\nzz\r\n")
    assert http.head is not None
    assert http.take() == b"ok"


def test_a_connection_serves_one_exchange_after_another() -> None:
    http = asked()
    http.receive(OK + TWO)
    assert (http.take(), http.reusable) == (b"ok", True)
    request = Request("GET", "http://test/again")
    http.send_request(request_head(request, Destination.of(request, None)))
    assert (http.head, http.ended) == (None, False)
    assert http.data_to_send() == b"GET /again HTTP/1.1\r\nHost: test\r\n\r\n"
    http.receive(OK + TWO)
    assert (http.take(), http.reusable) == (b"ok", True)


def test_an_answer_to_half_a_request_ends_the_connection_with_it() -> None:
    http = Http1()
    request = Request("POST", "http://test/", body=bytes(1_000_000))
    http.send_request(request_head(request, Destination.of(request, None)))
    http.data_to_send()
    http.receive(OK + TWO)
    assert (http.ended, http.reusable) == (True, False)
