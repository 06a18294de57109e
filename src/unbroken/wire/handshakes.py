"""The handshakes with proxies, without I/O: their buffer, and HTTP CONNECT (RFC 9110, section 9.3.6). See ``socks``."""

from __future__ import annotations

import re
from collections.abc import Generator

import httptools

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.http1 import words_of
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination, authority_of, proxy_authorization

MAX_RESPONSE = 64 * 1024
"""Bytes of the head of a proxy's response."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


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
    while not (end := _END_OF_HEAD.search(buffer.incoming)):
        if len(buffer.incoming) > MAX_RESPONSE:
            raise WireError(Failure.PROXY_PROTOCOL, "the response is too long")
        yield
    status, reason = _ConnectResponse().read((yield from buffer.read(end.end())))
    if not 200 <= status < 300:
        raise WireError(_refusal(status), f"{status} {reason}".strip())


class _ConnectResponse:
    """The head of the response to CONNECT, whose length fields mean nothing."""

    def __init__(self) -> None:
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def read(self, head: bytes) -> tuple[int, str]:
        """Return status and reason."""
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_chunked_length=True)
        try:
            parser.feed_data(head)
        except httptools.HttpParserError as exc:
            raise WireError(Failure.PROXY_PROTOCOL, words_of(exc)) from None
        return parser.get_status_code(), self._reason.decode("latin-1")


def _refusal(status: int) -> Failure:
    if status == 407:
        return Failure.PROXY_AUTH
    if status >= 500:
        return Failure.PROXY_UNREACHABLE
    return Failure.PROXY_REFUSED if status >= 400 else Failure.PROXY_PROTOCOL
