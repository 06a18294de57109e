"""Header fields: what a gateway removes and what it adds (RFC 9110, section 7.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from unbroken.core.dialects import credential_headers, find_dialect
from unbroken.core.http import Head, Headers
from unbroken.core.report import Report
from unbroken.relay.settings import UpstreamSettings

TOKEN_FIELD = b"x-unbroken-token"

_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
)
_OURS_ALONE = frozenset({b"host", b"expect", TOKEN_FIELD})
_CORS = b"access-control-"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110, section 5.6.2
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return every value of a field, in order; names are in lower case."""
    return [value for field, value in headers if field == name]


def lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the fields with their names in lower case, and without the whitespace around their values."""
    return tuple((name.lower(), value.strip(b" \t")) for name, value in headers)


def upwards(headers: Headers, upstream: UpstreamSettings, *, inject: bool, via: bytes) -> Headers:
    """Return the fields of a request (names in lower case) for the upstream."""
    dropped = _OURS_ALONE | (credential_headers() if inject else frozenset())
    kept = tuple((name, value) for name, value in _end_to_end(headers) if name not in dropped)
    return (*kept, *(_key(upstream) if inject else ()), (b"via", via))


def downwards(head: Head, *, stream: bool) -> list[tuple[bytes, bytes]]:
    """Return the fields of a response for the client, without the upstream's CORS fields.

    Fields that HTTP/1.1 cannot carry (they come from HTTP/2) are removed, and control characters become spaces
    (RFC 9110, section 5.5).

    Args:
        head: the upstream's head.
        stream: whether events follow, between which heartbeats and an error may be sent: then no length is sent.
    """
    kept = _end_to_end(lowered(head.headers))
    return [
        (name, _CONTROLS.sub(b" ", value))
        for name, value in kept
        if _NAME.fullmatch(name) and not name.startswith(_CORS) and not (stream and name == b"content-length")
    ]


def report_headers(turn_id: str, report: Report) -> list[tuple[bytes, bytes]]:
    """Return the report of a turn as header fields, as far as it is known when the headers are sent."""
    fields = {
        "x-unbroken-turn": turn_id,
        "x-unbroken-retries": str(report.retries),
        "x-unbroken-replays": str(report.replays),
        "x-unbroken-lost": ", ".join(report.losses),
    }
    return [(name.encode(), value.encode()) for name, value in fields.items() if value]


def _end_to_end(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Return the fields that are not for the next hop alone, by the standard or by ``Connection``."""
    named = {token.strip().lower() for value in values(headers, b"connection") for token in value.split(b",")}
    return (field for field in headers if field[0] not in _HOP_BY_HOP and field[0] not in named)


def _key(upstream: UpstreamSettings) -> Headers:
    """Return the fields that carry the upstream's key, if there is one to inject."""
    fields = find_dialect(upstream.dialect).credentials(upstream.key) if upstream.key else {}
    return tuple((name.lower().encode(), value.encode()) for name, value in fields.items())
