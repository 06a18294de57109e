"""Access control: hosts, tokens, web origins, and ambiguous requests."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote_plus

from unbroken.core.dialects import credential_headers, credential_parameters
from unbroken.core.http import Headers
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.headers import TOKEN_FIELD, values
from unbroken.relay.routes import OWN, is_ambiguous, is_own
from unbroken.relay.settings import Settings, is_loopback

HEALTH = f"{OWN}/health"
"""The health check, which needs no token: it says nothing about the relay."""

_HTTP_INSTEAD = ((b"upgrade", b"HTTP/1.1"),)
_PREFLIGHT_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_PREFLIGHT_AGE = b"600"


def check(incoming: ClientRequest, settings: Settings) -> None:
    """Refuse a request that must not be served.

    Raises:
        Rejection: it must not be served.
    """
    if incoming.http_version not in ("1.1", "2", "3"):
        # In HTTP/1.0 a body without a length ends with the connection: a cut looks like an end.
        raise Rejection(505, "http_version", "speak HTTP/1.1 to this relay (nginx: proxy_http_version 1.1)")
    if any(coding.lower() != b"chunked" for coding in values(incoming.headers, b"transfer-encoding")):
        raise Rejection(501, "transfer_coding", "chunked is the only transfer coding that this relay knows")
    hosts = values(incoming.headers, b"host")
    if len(hosts) != 1:
        raise Rejection(400, "bad_request", "a request must have exactly one Host")
    if not _is_ours(_hostname(hosts[0]), settings):
        raise Rejection(
            421,
            "misdirected_request",
            "this relay does not answer to that Host (allow it with --allow-host), and it is no forward proxy",
        )
    if is_ambiguous(incoming.path):
        raise Rejection(400, "bad_request", "a path cannot have . or .. segments")
    if any(value.lower() == b"websocket" for value in values(incoming.headers, b"upgrade")):
        # Codex tries WebSocket first, and HTTP as soon as it gets this status.
        raise Rejection(426, "no_websocket", "this relay speaks no WebSocket: ask over HTTP", _HTTP_INSTEAD)
    if incoming.path != HEALTH and preflight(incoming, settings) is None:
        _check_token(incoming, settings)


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


def _hostname(host: bytes) -> str:
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _is_ours(host: str, settings: Settings) -> bool:
    return is_loopback(host) or host in settings.hosts or "*" in settings.hosts


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
            yield _credential(value)
    for key, text in parse_qsl(incoming.query):
        if key in credential_parameters():
            yield text.encode()


def _credential(value: bytes) -> bytes:
    """Return the key in a field: plain, after ``Bearer``, or as the password of ``Basic``."""
    scheme, _, rest = value.strip().partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return value.strip()
