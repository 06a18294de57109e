"""Requests over HTTP/1.1 as the upstream and the proxy read them, by httptools."""

from __future__ import annotations

import dataclasses
from collections import deque

import httptools


@dataclasses.dataclass
class ParsedRequest:
    """One request.

    Attributes:
        method: such as ``"POST"``.
        target: as it stands in the request line.
        version: ``"1.0"`` or ``"1.1"``.
        headers: fields in order, as they were written.
        body: the whole body.
    """

    method: str = ""
    target: str = ""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    body: bytearray = dataclasses.field(default_factory=bytearray)


class RequestParser:
    """The requests of one connection.

    Attributes:
        complete: the requests that have come and were not taken.
    """

    def __init__(self) -> None:
        self.complete: deque[ParsedRequest] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._request = ParsedRequest()
        self._has_head = False
        self._expects_continue = False

    def feed(self, data: bytes) -> None:
        """Read bytes.

        Raises:
            ValueError: they are no request.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # CONNECT, or an upgrade that is not made
        except httptools.HttpParserError as exc:
            raise ValueError(str(exc)) from None

    def head(self, data: bytes) -> ParsedRequest:
        """Read the head of a request, and return it without its body.

        Raises:
            ValueError: it is no head of a request.
        """
        self.feed(data)
        if not self._has_head:
            raise ValueError("not a request")
        return self._request

    def take_expectation(self) -> bool:
        """Return, once, whether the client waits for ``100 Continue`` (RFC 9110, section 10.1.1)."""
        expected, self._expects_continue = self._expects_continue, False
        return expected

    # Callbacks of httptools

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request, self._has_head = ParsedRequest(), False

    def on_url(self, url: bytes) -> None:
        """A part of the target has come."""
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field has come."""
        if not self._has_head:
            self._request.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        request = self._request
        request.method = self._parser.get_method().decode()
        request.version = self._parser.get_http_version()
        if request.version == "1.1" and not any(name.lower() == b"host" for name, _ in request.headers):
            raise ValueError("no Host")  # RFC 9112, section 3.2
        self._has_head = True
        fields = [(name.lower(), value.lower()) for name, value in request.headers]
        self._expects_continue = (b"expect", b"100-continue") in fields

    def on_body(self, data: bytes) -> None:
        """Bytes of the body have come."""
        self._request.body += data
        self._expects_continue = False

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._expects_continue = False
        self.complete.append(self._request)
