"""Requests and responses in httpcore2's form, the same for sync and async."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import httpcore2

from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.errors import WireError
from unbroken.wire.library_parts import check_httpcore2
from unbroken.wire.proxies import Proxy, ProxyRules
from unbroken.wire.tls import client_context

KEEP_IDLE = 15.0
"""Seconds for which an idle connection is kept. Longer saves little: behind a NAT it may be dead by then."""

MAX_IDLE = 8
"""How many idle connections are kept."""

_PORTS = {"http": 80, "https": 443}
_FRAMING = (b"content-length", b"transfer-encoding")


class ConnectionKey(tuple[str, str, int]):
    """The route of a connection: scheme, host and port. Connections with equal routes are interchangeable."""

    @classmethod
    def of(cls, request: Request) -> ConnectionKey:
        """Return the route of a request."""
        parts = request.parts
        return cls((parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]))


class PoolOptions:
    """The options that all connections of a wire share.

    Args:
        proxies: the rules that choose the proxy of a URL.
        verify: see :func:`unbroken.wire.tls.client_context`. Loaded for the first https URL.
        http2: whether to offer HTTP/2.

    Raises:
        UsageError: this httpcore2 lacks parts that are used of it.
    """

    def __init__(self, proxies: ProxyRules, verify: bool | str | Path | ssl.SSLContext, *, http2: bool) -> None:
        check_httpcore2()
        self._proxies = proxies
        self._verify = verify
        self._http2 = http2
        self._context: ssl.SSLContext | None = None
        self._proxy_context: ssl.SSLContext | None = None

    def proxy_for(self, request: Request) -> Proxy | None:
        """Return the proxy that a request goes through."""
        return self._proxies.choose(request.url)

    def for_route(self, route: ConnectionKey, proxy: Proxy | None) -> dict[str, Any]:
        """Return the arguments for a pool of one connection.

        Raises:
            UsageError: the CA file cannot be used.
        """
        options: dict[str, Any] = {"max_connections": 1, "max_keepalive_connections": 1, "http2": self._http2}
        if route[0] == "https":
            self._context = self._context or client_context(self._verify)
            options["ssl_context"] = self._context
        if proxy:
            options["proxy"] = self._proxy(proxy)
        return options

    def _proxy(self, proxy: Proxy) -> httpcore2.Proxy:
        context = None
        if proxy.scheme == "https":
            # A context of its own: httpcore2 sets each context's ALPN protocols before a handshake.
            context = self._proxy_context = self._proxy_context or client_context(self._verify)
        auth = tuple(part.encode() for part in proxy.auth) if proxy.auth else None
        url = httpcore2.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/")
        return httpcore2.Proxy(url, auth=auth, ssl_context=context)  # type: ignore[arg-type]  # it is a pair, as needed


def to_httpcore(
    request: Request, trace: Any, proxy: Proxy | None, content: AsyncIterable[bytes] | None = None
) -> httpcore2.Request:
    """Convert a request to httpcore2's form, with ``Host`` and the framing of its body.

    Args:
        request: what to send.
        trace: called at httpcore2's steps.
        proxy: the proxy that the request goes through.
        content: sent instead of the request's own body, framed as the request's headers say, or else in chunks.
    """
    parts = request.parts
    host = parts.hostname or ""
    literal = f"[{host}]" if ":" in host else host
    authority = literal if parts.port in (None, _PORTS[parts.scheme]) else f"{literal}:{parts.port}"
    names = {name.lower() for name, _ in request.headers}
    headers = [] if b"host" in names else [(b"Host", authority.encode())]
    headers += [field for field in request.headers if field[0].lower() not in _FRAMING]
    if content is not None:
        length = next((field for field in request.headers if field[0].lower() == b"content-length"), None)
        headers.append(length or (b"Transfer-Encoding", b"chunked"))
    elif request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append((b"Content-Length", str(len(request.body)).encode()))
    # Through an HTTP proxy the host also goes into a request line, where an IPv6 address needs its brackets.
    through_http = proxy is not None and proxy.scheme in ("http", "https")
    url = httpcore2.URL(
        scheme=parts.scheme,
        host=literal if through_http else host,
        port=parts.port,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    body = request.body if content is None else content
    return httpcore2.Request(request.method, url, headers=headers, content=body, extensions={"trace": trace})


def to_head(response: httpcore2.Response, proxy: Proxy | None) -> Head:
    """Return the status and headers of httpcore2's response.

    Raises:
        WireError: the response is the proxy's, which asks for credentials (RFC 9110, section 15.5.8).
    """
    if response.status == 407 and proxy:
        raise WireError(Failure.PROXY_AUTH, "407")
    version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "replace")
    return Head(response.status, tuple(response.headers), version)


def begins_request(name: str, info: dict[str, Any]) -> bool:
    """Return whether a trace event of httpcore2 says that the request (not its CONNECT) is about to be sent."""
    with contextlib.suppress(KeyError):
        return name.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT"
    return False


def is_idle(connections: list[Any]) -> bool:
    """Return whether a pool's one connection can serve again, according to HTTP.

    It cannot if more has come than the response: httpcore2 would take that for the response to the next request. If
    that is not known, it cannot either.
    """
    if [connection.is_idle() for connection in connections] != [True]:
        return False
    connection = connections[0]
    while (inner := getattr(connection, "_connection", None)) is not None:
        connection = inner
    parser = getattr(connection, "_h11_state", None)
    if parser is None:
        return hasattr(connection, "_h2_state")
    return bool(parser.trailing_data == (b"", False))
