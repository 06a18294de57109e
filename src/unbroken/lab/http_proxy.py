"""The proxy's side of HTTP: CONNECT (RFC 9110, section 9.3.6) and requests with an absolute target.

The body of a forwarded request and the response are passed on byte for byte: framing that is broken on purpose arrives
unaltered. So a connection carries one forwarded request; the target is asked to close after it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from unbroken.lab.negotiation import Credentials, ProxyRefusal
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.request_parser import ParsedRequest, RequestParser
from unbroken.lab.tunnel import TunnelKind

Headers = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"})
_STATUSES = {ProxyRefusal.FORBIDDEN: HTTPStatus.FORBIDDEN, ProxyRefusal.UNREACHABLE: HTTPStatus.BAD_GATEWAY}


class _Wish(NamedTuple):
    """The kind and target of a request, and the head to forward."""

    kind: TunnelKind
    target: tuple[str, int]
    head: bytes


class HttpNegotiation:
    """An HTTP client that has asked for a tunnel, or for a request to be passed on.

    Args:
        client: the client.
        wish: which of the two it has asked for, and its target.
        refuse_with: the status of a refusal on purpose.
    """

    def __init__(self, client: RawStream, wish: _Wish, refuse_with: int) -> None:
        self.kind = wish.kind
        self.target = wish.target
        self.head = wish.head
        self._client = client
        self._refuse_with = refuse_with

    async def grant(self) -> None:
        """Report that the tunnel is open. A forwarded request is answered only by its target."""
        if self.kind == "connect":
            await self._client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def refuse(self, refusal: ProxyRefusal, /) -> None:
        """Answer with the status for this refusal."""
        await _reply(self._client, _STATUSES.get(refusal, self._refuse_with))


async def negotiate(client: RawStream, credentials: Credentials | None, refuse_with: int) -> HttpNegotiation | None:
    """Read what the client asks for; return None if it was refused already.

    Raises:
        OSError: the client left.
    """
    head = await client.read_until(b"\r\n\r\n")
    try:
        request = RequestParser().head(head)
        if credentials is not None and not _is_authorized(request.headers, credentials):
            await _reply(client, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "proxy-authenticate: Basic realm=lab")
            return None
        return HttpNegotiation(client, _understand(request), refuse_with)
    except ValueError:
        await _reply(client, HTTPStatus.BAD_REQUEST)
        return None


def _is_authorized(headers: Headers, credentials: Credentials) -> bool:
    wanted = b"Basic " + base64.b64encode(":".join(credentials).encode())
    return (b"proxy-authorization", wanted) in [(name.lower(), value) for name, value in headers]


def _understand(request: ParsedRequest) -> _Wish:
    """Return what the request asks for.

    Raises:
        ValueError: its target is neither a host and a port nor an absolute ``http`` URL.
    """
    if request.method == "CONNECT":
        url = urlsplit(f"//{request.target}")
        if url.hostname is None or url.port is None:
            raise ValueError("CONNECT needs a host and a port")
        return _Wish("connect", (url.hostname, url.port), b"")
    url = urlsplit(request.target)
    if url.scheme != "http" or url.hostname is None:
        raise ValueError("not an absolute http URL")
    origin_form = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return _Wish("forward", (url.hostname, url.port or 80), _head(request, origin_form))


def _head(request: ParsedRequest, target: str) -> bytes:
    """Return the head of a request as it is passed on."""
    lines = [f"{request.method} {target} HTTP/1.1".encode("latin-1")]
    lines += [b"%s: %s" % header for header in [*end_to_end(request.headers), (b"Connection", b"close")]]
    return b"\r\n".join([*lines, b"", b""])


def end_to_end(headers: Headers, *, without: frozenset[bytes] = frozenset()) -> list[tuple[bytes, bytes]]:
    """Return the fields that are not about one connection (RFC 9110, section 7.6.1).

    Args:
        headers: all fields.
        without: names, in lower case, of further fields to drop.
    """
    options = [value for name, value in headers if name.lower() == b"connection"]
    named = b",".join(options).lower().split(b",")
    dropped = _HOP_BY_HOP | without | {name.strip() for name in named}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


async def _reply(client: RawStream, status: int, *headers: str) -> None:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Lab"
    lines = [f"HTTP/1.1 {int(status)} {reason}", "content-length: 0", "connection: close", *headers, "", ""]
    await client.send("\r\n".join(lines).encode("latin-1"))
