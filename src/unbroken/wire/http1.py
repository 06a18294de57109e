"""HTTP/1.1 (RFC 9112), the client's side of one connection, without I/O.

httptools (llhttp) reads responses; requests are written here. What is accepted of a response, and what is refused, is
the table in ``tests/wire/test_http1.py``.
"""

from __future__ import annotations

import re
from typing import Literal

import httptools

from unbroken.core.failures import Failure
from unbroken.core.http import Head, Headers
from unbroken.errors import WireError
from unbroken.wire.requests import RequestHead

CHUNK = 64 * 1024
"""Bytes that are handed to the network at a time."""

MAX_HEAD = 128 * 1024
"""Bytes of the status line and the header fields of a response, before they are whole."""

MAX_TRAILERS = 64 * 1024
"""Bytes of trailer fields, which are skipped."""

_FORBIDDEN_IN_VALUE = re.compile(rb"[\0\r\n]")  # RFC 9110, section 5.5

_LENIENCIES = {
    "lenient_headers": True,  # folded fields: a user agent must accept them (RFC 9112, section 5.2)
    "lenient_chunked_length": True,  # both lengths: Transfer-Encoding overrides (RFC 9112, section 6.3)
    "lenient_optional_cr_before_lf": True,  # a bare LF may end a line (RFC 9112, section 2.2)
    "lenient_spaces_after_chunk_size": True,  # servers pad chunk sizes
}


class Http1:
    """One connection, which serves one exchange after another.

    Attributes:
        head: status and headers of the response, once they have come.
        ended: whether the response is complete.
        untaken: bytes of the body that have come and were not taken.
        response_bytes: bytes of heads and bodies that have come, without the framing of chunks.
        waits_for_room: whether the rest of the request waits for the server (never: HTTP/1.1 has no flow control).
    """

    version: Literal["HTTP/1.1"] = "HTTP/1.1"
    waits_for_room = False

    def __init__(self) -> None:
        self.head: Head | None = None
        self.ended = False
        self.untaken = self.response_bytes = 0
        self._out: list[bytes | memoryview] = []
        self._body: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._parser: httptools.HttpResponseParser | None = None
        self._method = ""
        self._ends_by_close = True
        self._keeps_alive = False
        self._head_size = self._trailers = 0
        self._chunked = False
        self._uploading = False

    # The request

    def send_request(self, request: RequestHead) -> None:
        """Write the head of a request, with the body if that is in memory."""
        self.head, self.ended, self._method = None, False, request.method
        self._keeps_alive, self._trailers = False, 0
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENCIES)
        self._chunked, self._uploading = request.length is None, request.streamed
        lines = [f"{request.method} {request.target} HTTP/1.1".encode()]
        lines += [b"%b: %b" % field for field in request.fields]
        head = b"\r\n".join([*lines, b"", b""])
        if len(request.body) <= CHUNK:
            self._out.append(head + request.body)
        else:
            self._out += [head, memoryview(request.body)]

    def send_body(self, data: bytes) -> None:
        """Write a piece of a streamed body."""
        if data:
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_body(self) -> None:
        """Write the end of a streamed body."""
        self._uploading = False
        if self._chunked:
            self._out.append(b"0\r\n\r\n")

    def data_to_send(self) -> bytes | memoryview:
        """Return the next bytes for the network, about :data:`CHUNK` at most, or ``b""``."""
        if not self._out:
            return b""
        data = self._out.pop(0)
        if len(data) > CHUNK:
            view = memoryview(data)
            data = view[:CHUNK]
            self._out.insert(0, view[CHUNK:])
        return data

    # The response

    def receive(self, data: bytes) -> None:
        """Read bytes of the response.

        Raises:
            WireError: ``BROKEN_FRAMING``; what came before it can still be taken.
        """
        if self._parser is None:  # more than the response
            self._keeps_alive = False
            return
        if self.head is None:
            self.response_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            raise exc.__context__ or exc from None
        except httptools.HttpParserError as exc:
            self._keeps_alive = False
            if not self.ended:
                raise WireError(Failure.BROKEN_FRAMING, words_of(exc)) from None
        if self.ended:
            self._parser = None
        elif self.head is None:
            self._limit_head(len(data))

    def receive_eof(self) -> None:
        """Read the end of the connection, which ends a body without a length (RFC 9112, section 6.3).

        Raises:
            WireError: ``CLOSED`` or ``TRUNCATED``: the response is not complete.
        """
        self._keeps_alive = False
        if self.ended:
            return
        if self.head is None:
            raise WireError(Failure.CLOSED)
        if not self._ends_by_close:
            raise WireError(Failure.TRUNCATED)
        self.ended = True
        self._parser = None

    def take(self) -> bytes:
        """Return the bytes of the body that have come since the last call."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self.untaken = 0
        return data

    @property
    def is_sent(self) -> bool:
        """Whether the request has been handed to the network."""
        return not (self._out or self._uploading)

    @property
    def reusable(self) -> bool:
        """Whether the connection can serve another exchange."""
        return self.ended and self._keeps_alive and self.is_sent

    def _limit_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise WireError(Failure.BROKEN_FRAMING, "the head of the response is too long")

    # Callbacks of httptools

    def on_message_begin(self) -> None:
        """A response begins."""
        self._fields = []
        self._head_size = 0
        self._ends_by_close = True
        if self.ended:
            self._keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or trailer field has come."""
        if self.head is not None:
            self._trailers += len(name) + len(value)
            if self._trailers > MAX_TRAILERS:
                raise WireError(Failure.BROKEN_FRAMING, "the trailers are too long")
            return
        if _FORBIDDEN_IN_VALUE.search(value):
            raise WireError(Failure.BROKEN_FRAMING, "invalid header value")
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of a response is complete; informational ones (RFC 9110, section 15.2) are skipped."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status == 101:
            raise WireError(Failure.BROKEN_FRAMING, "101 Switching Protocols, which was not asked for")
        if status < 200 or self.ended:
            return
        fields = tuple(self._fields)
        lengths = _lengths(fields)
        self._ends_by_close = not lengths
        self._keeps_alive = self._parser.should_keep_alive() and len(lengths) < 2  # RFC 9112, section 6.3
        self.head = Head(status, fields, f"HTTP/{self._parser.get_http_version()}")
        if self._method == "HEAD":
            self.ended = True

    def on_body(self, data: bytes) -> None:
        """Bytes of the body have come."""
        if self.ended:
            self._keeps_alive = False
        else:
            self._body.append(data)
            self.untaken += len(data)
            self.response_bytes += len(data)

    def on_message_complete(self) -> None:
        """A response is complete."""
        if self.head is not None:
            self.ended = True


def _lengths(fields: Headers) -> set[bytes]:
    """Return which fields say how long the body is; without any, it ends with the connection.

    Raises:
        WireError: a transfer coding that cannot be read.
    """
    codings = [value.strip().lower() for name, value in fields if name.lower() == b"transfer-encoding"]
    if codings and codings != [b"chunked"]:
        raise WireError(Failure.BROKEN_FRAMING, "a transfer coding other than chunked")
    return {name.lower() for name, _ in fields} & {b"content-length", b"transfer-encoding"}


def words_of(exc: httptools.HttpParserError) -> str:
    """Return the message of httptools; none quotes what was read."""
    words = str(exc)
    return words if "-" in words.partition(" ")[0] else words[:1].lower() + words[1:]
