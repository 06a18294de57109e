"""Access control: hosts, tokens, web origins, and ambiguous requests."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote_plus

from unbroken.core.dialects import credential_headers, credential_parameters
from unbroken.core.http import Headers
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.headers import TOKEN_FIELD, values
from unbroken.relay.routes import OWN, is_ambiguous, is_own
from unbroken.relay.settings import Settings, UpstreamSettings, is_loopback

HEALTH = f"{OWN}/health"
"""The health check, which needs no token: it says nothing about the relay."""

_HTTP_INSTEAD = ((b"upgrade", b"HTTP/1.1"),)
_PREFLIGHT_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_PREFLIGHT_AGE = b"600"


def check(incoming: ClientRequest, settings: Settings) -> None:
    """Refuse what must not be served.

    Raises:
        Rejection: the request is not served.
    """
    _check_http(incoming)
    _check_host(incoming, settings)
    if is_ambiguous(incoming.path):
        raise Rejection(400, "bad_request", "a path cannot have . or .. segments, nor NUL")
    if incoming.path == OWN or incoming.path == HEALTH:
        return  # a redirect to the page, which asks for the token there; and what says nothing
    if preflight(incoming, settings) is None:
        _check_token(incoming, settings)


def _check_http(incoming: ClientRequest) -> None:
    """Refuse what the relay does not speak."""
    if incoming.http_version not in ("1.1", "2", "3"):
        # A body without a length ends there with the connection: a cut could not be told from an end.
        raise Rejection(505, "http_version", "speak HTTP/1.1 to this relay (nginx: proxy_http_version 1.1)")
    if incoming.method in ("TRACE", "CONNECT"):  # TRACE would return the key that the relay puts in
        raise Rejection(501, "not_implemented", f"{incoming.method} is not forwarded")
    if any(coding.lower() != b"chunked" for coding in values(incoming.headers, b"transfer-encoding")):
        raise Rejection(501, "transfer_coding", "chunked is the only transfer coding that this relay knows")
    if any(value.lower() == b"websocket" for value in values(incoming.headers, b"upgrade")):
        # Codex tries this first, and falls back to HTTP on this status.
        raise Rejection(426, "no_websocket", "this relay speaks no WebSocket: ask over HTTP", _HTTP_INSTEAD)


def _check_host(incoming: ClientRequest, settings: Settings) -> None:
    """Refuse another ``Host`` than the relay's: a page could reach it by a name that leads here (DNS rebinding)."""
    hosts = values(incoming.headers, b"host")
    if len(hosts) != 1:
        raise Rejection(400, "bad_request", "a request must have exactly one Host")
    host = _hostname(hosts[0])
    if host is None or not (is_loopback(host) or host in settings.hosts or "*" in settings.hosts):
        raise Rejection(
            421,
            "misdirected_request",
            "this relay does not answer to that Host (allow it with --allow-host), and it is no forward proxy",
        )


def check_origin(incoming: ClientRequest, settings: Settings, upstream: UpstreamSettings) -> None:
    """Refuse a request that a page of another site makes with what the relay supplies: it may be forged.

    A browser sends the request of any page that the user visits. It can only do harm where the relay itself supplies
    what makes it work: an injected key, or an upstream that needs none. A request with credentials of its own is not
    forged: a page of another site does not know them.

    Raises:
        Rejection: 403, with the origin and the option that allows it.
    """
    origin = _foreign_origin(incoming, settings)
    if not origin or not (settings.inject_key or not upstream.key_env) or _has_own_credentials(incoming):
        return
    raise Rejection(
        403,
        "cross_origin",
        f"a page of {origin} may not use this relay without credentials of its own (--allow-origin allows it)",
    )


def _foreign_origin(incoming: ClientRequest, settings: Settings) -> str:
    """Return the origin of the page that made the request, if it is neither the relay's own nor an allowed one."""
    origin = b"".join(values(incoming.headers, b"origin")[:1]).decode("latin-1")
    if not origin:
        sites = values(incoming.headers, b"sec-fetch-site")  # W3C Fetch Metadata; not sent by programs
        return "another site" if any(site in (b"cross-site", b"same-site") for site in sites) else ""
    host = values(incoming.headers, b"host")[0].decode("latin-1").lower()
    is_own = origin.lower() in (f"http://{host}", f"https://{host}")
    return "" if is_own or not settings.origins.isdisjoint({"*", origin}) else origin


def _has_own_credentials(incoming: ClientRequest) -> bool:
    """Return whether the request carries a key or the relay's token. Browsers add ``Basic`` by themselves."""
    carriers = credential_headers() | {TOKEN_FIELD}
    shown = (value for name, value in incoming.headers if name in carriers)
    if any(value and not value.lower().startswith(b"basic ") for value in shown):
        return True
    return any(name in credential_parameters() and value for name, value in parse_qsl(incoming.query))


def cross_origin(incoming: ClientRequest, settings: Settings) -> Headers:
    """Return the fields by which a browser lets a page of another origin read the answer; none unless allowed."""
    origin = b"".join(values(incoming.headers, b"origin")[:1])
    if not origin or settings.origins.isdisjoint({"*", origin.decode("latin-1")}):
        return ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    )


def preflight(incoming: ClientRequest, settings: Settings) -> Headers | None:
    """Return the fields of the answer to a CORS preflight; ``None`` if the request is not one, or is not allowed.

    Source: WHATWG Fetch, "CORS-preflight fetch".
    """
    allowed = cross_origin(incoming, settings) if _is_preflight(incoming) else ()
    if not allowed:
        return None
    wanted = b", ".join(values(incoming.headers, b"access-control-request-headers"))
    return (
        *allowed,
        (b"access-control-allow-methods", _PREFLIGHT_METHODS),
        (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", _PREFLIGHT_AGE),
    )


def without_token(query: str, settings: Settings) -> str:
    """Return the query without the relay's token, which some clients send as a parameter."""
    if not settings.inject_key:
        return query
    keys = credential_parameters()
    return "&".join(piece for piece in query.split("&") if unquote_plus(piece.partition("=")[0]) not in keys)


def _is_preflight(incoming: ClientRequest) -> bool:
    return incoming.method == "OPTIONS" and bool(values(incoming.headers, b"access-control-request-method"))


_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\\\s]+))(?::\d*)?")


def _hostname(host: bytes) -> str | None:
    """Return the name or address in a ``Host`` field (RFC 9110, section 7.2), ``None`` if it is malformed."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).decode("latin-1").lower().rstrip(".") if found else None


def _check_token(incoming: ClientRequest, settings: Settings) -> None:
    if not settings.token:
        return
    own = is_own(incoming.path)
    if any(hmac.compare_digest(shown, settings.token.encode()) for shown in _shown(incoming, settings, own=own)):
        return
    where = "as the API key or in " if settings.inject_key else "in "
    challenge = b'Basic realm="unbroken"' if own else b'Bearer realm="unbroken"'
    raise Rejection(
        401,
        "relay_token",
        f"this relay demands its token, {where}the header x-unbroken-token",
        ((b"www-authenticate", challenge),),
    )


def _shown(incoming: ClientRequest, settings: Settings, *, own: bool) -> Iterable[bytes]:
    """Yield every value of the request that could be the token, without keys that are forwarded to the upstream."""
    yield from values(incoming.headers, TOKEN_FIELD)
    if not (settings.inject_key or own):
        return
    for name, value in incoming.headers:
        if name in credential_headers():
            yield _credential(value, basic=own)
    for key, text in parse_qsl(incoming.query):
        if key in credential_parameters():
            yield text.encode()


def _credential(value: bytes, *, basic: bool) -> bytes:
    """Return a key from its field: plain, after ``Bearer``, or the password of ``Basic`` where that is accepted.

    A browser sends ``Basic`` credentials again with every request that any page makes: they count for the page alone.
    """
    scheme, _, rest = value.strip().partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).partition(b":")[2] if basic else b""
            except binascii.Error:
                return b""
    return value.strip()
