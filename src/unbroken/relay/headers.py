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
    """Every value of a field, in order; names are in lower case."""
    return [value for field, value in headers if field == name]


def lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The fields with their names in lower case, and without the whitespace around their values."""
    return tuple((name.lower(), value.strip(b" \t")) for name, value in headers)


def upwards(headers: Headers, upstream: UpstreamSettings, *, inject: bool, via: bytes) -> Headers:
    """The fields of a request (names in lower case) as the upstream shall see them."""
    dropped = _OURS_ALONE | (credential_headers() if inject else frozenset())
    kept = tuple((name, value) for name, value in _end_to_end(headers) if name not in dropped)
    return (*kept, *(_key(upstream) if inject else ()), (b"via", via))


def downwards(head: Head, *, stream: bool) -> list[tuple[bytes, bytes]]:
    """The fields of a response as the client shall see them.

    What HTTP/1.1 cannot carry (HTTP/2 brings it) is taken out: control characters become spaces, as RFC 9110,
    section 5.5, has it.

    Args:
        head: the upstream's.
        stream: whether events follow, among which heartbeats and an error may come: then no length is promised.
    """
    kept = _end_to_end(lowered(head.headers))
    return [
        (name, _CONTROLS.sub(b" ", value))
        for name, value in kept
        if _NAME.fullmatch(name) and not name.startswith(_CORS) and not (stream and name == b"content-length")
    ]


def report_headers(turn_id: str, report: Report) -> list[tuple[bytes, bytes]]:
    """The report of a turn as header fields, as far as it is known when the headers are sent."""
    fields = {
        "x-unbroken-turn": turn_id,
        "x-unbroken-retries": str(report.retries),
        "x-unbroken-replays": str(report.replays),
        "x-unbroken-lost": ", ".join(report.losses),
    }
    return [(name.encode(), value.encode()) for name, value in fields.items() if value]


def _end_to_end(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """What is not meant for the next hop alone, whether by the standard or by the word of ``Connection``."""
    named = {token.strip().lower() for value in values(headers, b"connection") for token in value.split(b",")}
    return (field for field in headers if field[0] not in _HOP_BY_HOP and field[0] not in named)


def _key(upstream: UpstreamSettings) -> Headers:
    """The fields that carry the upstream's key, where there is one to inject."""
    fields = find_dialect(upstream.dialect).credentials(upstream.key) if upstream.key else {}
    return tuple((name.lower().encode(), value.encode()) for name, value in fields.items())
