"""The handshakes with proxies, without I/O: their buffer, and HTTP CONNECT (RFC 9110, section 9.3.6). See ``socks``."""

from __future__ import annotations

import re
from collections.abc import Generator

import httptools

from unbroken.core.failures import Failure
from unbroken.core.http import redacted
from unbroken.errors import WireError
from unbroken.wire.http1 import words_of
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination, authority_of, proxy_authorization

MAX_RESPONSE = 64 * 1024
"""Bytes of the head of a proxy's response."""

_HTTP = b"HTTP/"

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")

_NO_PROXYS = frozenset({400, 404, 405, 501})
"""Statuses with which web servers answer CONNECT (RFC 9110, sections 15.5 and 15.6)."""


class Buffer:
    """The bytes of a handshake, in both directions.

    Attributes:
        incoming: what has come and was not read yet.
        outgoing: what is to be sent.
    """

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def taken(self) -> bytes:
        """Remove and return what is to be sent."""
        data = bytes(self.outgoing)
        self.outgoing.clear()
        return data

    def read(self, size: int) -> Generator[None, None, bytes]:
        """Read so many bytes; each ``yield`` waits for more."""
        while len(self.incoming) < size:
            yield
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data


def connect(buffer: Buffer, destination: Destination, proxy: Proxy) -> Generator[None, None, None]:
    """Ask an HTTP proxy for a tunnel.

    Raises:
        WireError: the proxy refuses, or does not speak HTTP.
    """
    authority = authority_of(destination).encode()
    fields = [(b"Host", authority), *proxy_authorization(proxy)]
    lines = [b"CONNECT %b HTTP/1.1" % authority, *(b"%b: %b" % field for field in fields), b"", b""]
    buffer.outgoing += b"\r\n".join(lines)
    head = yield from _read_head(buffer, proxy)
    response = _ConnectResponse(head)
    if not 200 <= response.status < 300:
        raise response.refusal()


def _read_head(buffer: Buffer, proxy: Proxy) -> Generator[None, None, bytes]:
    """Read the head of a response; what cannot become one is refused by its first bytes."""
    while True:
        if buffer.incoming[: len(_HTTP)] != _HTTP[: len(buffer.incoming)]:
            from unbroken.wire.culprits import other_protocol

            raise other_protocol(proxy, bytes(buffer.incoming))
        if end := _END_OF_HEAD.search(buffer.incoming):
            return (yield from buffer.read(end.end()))
        if len(buffer.incoming) > MAX_RESPONSE:
            raise WireError(Failure.PROXY_PROTOCOL, "the response is too long")
        yield


class _ConnectResponse:
    """The head of the response to CONNECT, whose length fields mean nothing.

    Attributes:
        status: the status.
    """

    def __init__(self, head: bytes) -> None:
        self._reason = b""
        self._location = b""
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_chunked_length=True)
        try:
            parser.feed_data(head)
        except httptools.HttpParserError as exc:
            raise WireError(Failure.PROXY_PROTOCOL, words_of(exc)) from None
        self.status: int = parser.get_status_code()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"location":
            self._location = value

    def refusal(self) -> WireError:
        """Return the failure that the status is."""
        told = f"{self.status} {self._reason.decode('latin-1')}".strip()
        if self.status in _NO_PROXYS:
            return WireError(Failure.PROXY_REFUSED, f"{told}; is it a proxy at all?")
        if self._location and self.status < 400:
            told += f", to {redacted(self._location.decode('latin-1'))}"
        return WireError(_refusal(self.status), told)


def _refusal(status: int) -> Failure:
    if status == 407:
        return Failure.PROXY_AUTH
    if status == 511 or 300 <= status < 400:
        return Failure.CAPTIVE_PORTAL
    if status >= 500:
        return Failure.PROXY_CANNOT_REACH
    return Failure.PROXY_REFUSED if status >= 400 else Failure.PROXY_PROTOCOL
