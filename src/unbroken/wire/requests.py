"""The head of a request as it is written on the wire, the same for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple

import msgspec

from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import WireError
from unbroken.wire.proxies import Proxy

_PORTS = {"http": 80, "https": 443}
_FRAMING = (b"content-length", b"transfer-encoding")
_VISIBLE = rb"[^\x00-\x20\x7f]"
_VALUE = re.compile(rb"(%b([^\x00-\x08\x0a-\x1f\x7f]*%b)?)?" % (_VISIBLE, _VISIBLE))  # RFC 9110, section 5.5


class Destination(NamedTuple):
    """Where a connection leads, and through which proxy. Connections with equal destinations are interchangeable."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None

    @classmethod
    def of(cls, request: Request, proxy: Proxy | None) -> Destination:
        """Return the destination of a request."""
        parts = request.parts
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], proxy)

    @property
    def first_hop(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.host, self.port)

    @property
    def authority(self) -> str:
        """The host, with its port unless that is the scheme's own."""
        return _bracketed(self.host) if self.port == _PORTS[self.scheme] else authority_of(self)

    @property
    def forwards(self) -> bool:
        """Whether an HTTP proxy is asked for the resource itself instead of a tunnel (RFC 9112, section 3.2.2)."""
        return self.proxy is not None and self.proxy.scheme in ("http", "https") and self.scheme == "http"


class RequestHead(msgspec.Struct, frozen=True):
    """A request as it is written.

    Attributes:
        method: such as ``"POST"``.
        scheme: ``"http"`` or ``"https"``.
        authority: host, and port if it is not the scheme's own.
        target: path and query, or the whole URL for a proxy that forwards.
        fields: the header fields, with ``Host`` and the framing of the body.
        body: the body if it is in memory.
        streamed: whether the body is written piece by piece instead.
        length: bytes of the whole body; ``None`` if a streamed one has no declared length.
    """

    method: str
    scheme: str
    authority: str
    target: str
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    streamed: bool
    length: int | None


def request_head(request: Request, destination: Destination, *, streamed: bool = False) -> RequestHead:
    """Return a request as it is written.

    Args:
        request: what to send.
        destination: where to.
        streamed: whether the body comes piece by piece, framed as the request's headers say, or else in chunks.

    Raises:
        WireError: ``BAD_REQUEST``: HTTP cannot carry a header value.
    """
    if not all(_VALUE.fullmatch(value) for _, value in request.headers):
        raise WireError(Failure.BAD_REQUEST, "illegal header value")
    parts = request.parts
    authority = destination.authority
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = [] if _value(request, b"host") is not None else [(b"Host", authority.encode())]
    fields += [field for field in request.headers if field[0].lower() not in _FRAMING]
    length = declared_length(request) if streamed else len(request.body)
    if length is None:
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif length or streamed or request.method in ("POST", "PUT", "PATCH"):
        fields.append((b"Content-Length", b"%d" % length))
    if destination.forwards:
        target = f"http://{authority}{target}"
        fields += proxy_authorization(destination.proxy)
    body = b"" if streamed else request.body
    return RequestHead(request.method, destination.scheme, authority, target, tuple(fields), body, streamed, length)


def authority_of(destination: Destination) -> str:
    """Return host and port in the form of a URL."""
    return f"{_bracketed(destination.host)}:{destination.port}"


def proxy_authorization(proxy: Proxy | None) -> list[tuple[bytes, bytes]]:
    """Return the field with the credentials of a proxy (RFC 7617), if it has any."""
    if proxy is None or proxy.auth is None:
        return []
    return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(":".join(proxy.auth).encode()))]


def declared_length(request: Request) -> int | None:
    """Return the length that the request's headers declare, if they do."""
    value = _value(request, b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def _value(request: Request, name: bytes) -> bytes | None:
    return next((value for key, value in request.headers if key.lower() == name), None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
