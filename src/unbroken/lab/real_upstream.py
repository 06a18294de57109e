"""A real upstream as a `FaultProxy` sees it: its address, and one exchange with it over HTTP/1.1.

Each exchange has a connection of its own, which is closed behind it: what becomes of one attempt says nothing about the
next.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import httptools

from unbroken.core.http import check_url
from unbroken.errors import UsageError
from unbroken.lab.dial import connect
from unbroken.lab.forward_proxy import ForwardProxy, parse_proxy
from unbroken.lab.http_proxy import end_to_end
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.tls import TlsRawStream

CONNECT_TIMEOUT = 30.0
"""Seconds within which the upstream is connected, TLS included."""

_OWN_HEADERS = frozenset({b"host", b"content-length", b"transfer-encoding", b"accept-encoding", b"expect"})
"""Headers of a request that are written anew. Compressed, its answer would hide its events."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_PORTS = {"http": 80, "https": 443}


class UnreachableError(Exception):
    """The upstream cannot be connected; the message says why."""


class UpstreamCutError(Exception):
    """The upstream ended the connection before its response was whole.

    Attributes:
        was_reset: whether it was a reset.
    """

    def __init__(self, was_reset: bool) -> None:
        super().__init__("the upstream ended the connection")
        self.was_reset = was_reset


@dataclass(frozen=True, slots=True)
class RealUpstream:
    """The address of a real upstream.

    Attributes:
        host: its name or address.
        port: its port.
        authority: both as the ``Host`` header has them.
        path: the path of its base URL, without a slash at the end.
        trust: the client's side of TLS; None: plain TCP.
        proxy: the proxy on the way; None: a direct connection.
    """

    host: str
    port: int
    authority: str
    path: str
    trust: ssl.SSLContext | None
    proxy: ForwardProxy | None = None

    def target(self, requested: str) -> str:
        """Return the request target at the upstream.

        A client may have been given the path of the base URL or not: it is added where it is missing.
        """
        path = requested.partition("?")[0]
        has_it = path == self.path or path.startswith(f"{self.path}/")
        return requested if has_it else self.path + requested

    @asynccontextmanager
    async def exchange(self, request: RecordedRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request and return its response, once its head has come.

        Raises:
            UnreachableError: the upstream cannot be connected.
            UpstreamCutError: it ended the connection before the head of a response.
        """
        stream = await self._connect()
        try:
            response = UpstreamResponse(stream, request.method)
            await response.begin(self._encode(request))
            yield response
        finally:
            stream.close()

    async def _connect(self) -> RawStream:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                sock = await self._open()
                return RawStream(sock) if self.trust is None else await self._secured(sock, self.trust)
        except TimeoutError:
            raise UnreachableError(f"no connection within {CONNECT_TIMEOUT:.0f} s") from None
        except ssl.SSLCertVerificationError as exc:
            raise UnreachableError(f"its certificate is refused: {exc.verify_message}") from None
        except OSError as exc:
            # asyncio puts the address in the place of the reason
            reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
            raise UnreachableError(reason or str(exc)) from None

    async def _open(self) -> socket.socket:
        if self.proxy is not None:
            return await self.proxy.connect(self.host, self.port)
        return await connect(self.host, self.port, allow_remote=True)

    async def _secured(self, sock: socket.socket, trust: ssl.SSLContext) -> RawStream:
        stream = TlsRawStream(sock, trust, self.host)
        try:
            await stream.handshake()
        except BaseException:
            stream.close()
            raise
        return stream

    def _encode(self, request: RecordedRequest) -> bytes:
        given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        lines = [f"{request.method} {self.target(request.target)} HTTP/1.1".encode("latin-1")]
        lines += [f"host: {self.authority}".encode("ascii")]
        lines += [b"%s: %s" % field for field in end_to_end(given, without=_OWN_HEADERS)]
        if request.body or request.method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            lines += [b"content-length: %d" % len(request.body)]
        lines += [b"accept-encoding: identity", b"connection: close", b"", b""]
        return b"\r\n".join(lines) + request.body


def parse_upstream(url: str, ca_file: str | None = None, proxy: str | None = None) -> RealUpstream:
    """Read the base URL of a real upstream.

    Args:
        url: an ``http`` or ``https`` URL.
        ca_file: a PEM file with authorities to trust besides the usual ones.
        proxy: the URL of an HTTP proxy on the way.

    Raises:
        UsageError: one of them is no such URL, or the file cannot be used. The message quotes no credentials.
    """
    check_url(url)
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError("the URL of the upstream has a user, a query or a fragment: the client sends what is needed")
    host = parts.hostname or ""
    usual = _PORTS[parts.scheme]
    port = usual if parts.port is None else parts.port
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == usual else f"{shown}:{port}"
    trust = _trust(ca_file) if parts.scheme == "https" else None
    way = parse_proxy(proxy) if proxy else None
    return RealUpstream(host, port, authority, parts.path.rstrip("/"), trust, way)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as exc:  # ssl.SSLError is one
            raise UsageError(f"cannot use the CA file {ca_file!r}: {exc.strerror or exc}") from None
    return context


class UpstreamResponse:
    """The response of one exchange, as it comes.

    Attributes:
        status: its status code.
        headers: its fields in order, without those of the connection and of the framing.
        length: the Content-Length; None without one.
        is_delimited: whether the body says where it ends; otherwise the end of the connection is its end.
    """

    def __init__(self, stream: RawStream, method: str) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.length: int | None = None
        self.is_delimited = True
        self._stream = stream
        self._method = method
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._has_head = False
        self._is_whole = False

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        values = [value for name, value in self.headers if name == "content-type"]
        return values[0].partition(";")[0].strip().lower() if values else ""

    @property
    def is_readable(self) -> bool:
        """Whether its body is not compressed."""
        codings = [value.strip().lower() for name, value in self.headers if name == "content-encoding"]
        return all(coding in ("", "identity") for coding in codings)

    async def begin(self, request: bytes) -> None:
        """Send the request, and read up to the end of the head.

        Raises:
            UpstreamCutError: the connection ended before.
        """
        with suppress(OSError):  # an early answer may have come; if not, reading says how the connection ended
            await self._stream.send(request)
        while not self._has_head:
            await self._read()

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Return the body as it comes, without its framing.

        Raises:
            UpstreamCutError: the connection ended before the body was whole.
        """
        while True:
            if self._body:
                piece = bytes(self._body)
                self._body.clear()
                yield piece
            elif self._is_whole:
                return
            else:
                await self._read()

    async def _read(self) -> None:
        data = await self._stream.read()
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                self._break_off()
        elif self._has_head and not self.is_delimited and not self._stream.was_reset:
            self._is_whole = True
        else:
            self._break_off()

    def _break_off(self) -> None:
        if not self._body:  # what came before the end is handed on first
            raise UpstreamCutError(self._stream.was_reset)

    # Callbacks of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field has come."""
        if not self._has_head:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self.status = self._parser.get_status_code()
        if self.status < HTTPStatus.OK:
            return
        self._has_head = True
        fields = dict(self._fields)
        length = fields.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() else None
        kept = end_to_end(self._fields, without=_FRAMING)
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept]
        self._is_whole = self._method == "HEAD" or self.status in _WITHOUT_BODY
        self.is_delimited = self._is_whole or bool(_FRAMING & fields.keys())

    def on_body(self, data: bytes) -> None:
        """Bytes of the body have come."""
        self._body += data

    def on_message_complete(self) -> None:
        """The response is complete, or an informational one before it."""
        if self._has_head:
            self._is_whole = True
        self._fields.clear()
