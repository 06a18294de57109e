"""Header fields: what a gateway removes and what it adds (RFC 9110, section 7.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from unbroken.core.dialects import credential_headers, find_dialect
from unbroken.core.http import Head, Headers
from unbroken.core.report import Report
from unbroken.relay.settings import UpstreamSettings

TOKEN_FIELD = b"x-unbroken-token"

HOLD_FIELD = b"x-unbroken-hold"
"""A field of requests that names how much of an attempt is held."""

KEY_FIELDS = (b"idempotency-key", b"x-unbroken-key")
"""Fields of requests that name a turn, so that it can be asked for once more; the second one is for the relay alone."""

RESUMABLE_FIELD = b"x-unbroken-resumable"
"""A field of requests by which events get ids, with which a client goes on after a cut."""

BACKGROUND_FIELD = b"x-unbroken-background"
"""A field of requests that says whether their response is to go on at the server, so that it can be resumed."""

_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
)
_OURS_ALONE = frozenset({b"host", b"expect", TOKEN_FIELD, HOLD_FIELD, KEY_FIELDS[1], RESUMABLE_FIELD, BACKGROUND_FIELD})
_KEPT_BACK = (b"access-control-", b"x-unbroken-")
"""Beginnings of fields that only the relay itself sends."""

_OF_THE_ORIGIN = frozenset(
    {b"set-cookie", b"set-cookie2", b"alt-svc", b"strict-transport-security", b"clear-site-data", b"refresh"}
    | {b"public-key-pins", b"expect-ct", b"nel", b"report-to", b"reporting-endpoints", b"service-worker-allowed"}
    | {
        b"content-security-policy",
        b"content-security-policy-report-only",
        b"x-content-type-options",
        b"x-frame-options",
    }
    | {b"origin-agent-cluster", b"accept-ch", b"critical-ch", b"permissions-policy", b"sourcemap", b"x-sourcemap"}
)
"""Fields by which an upstream would act on the origin of the relay in a browser."""

_SANDBOX: Headers = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))
"""An upstream's HTML must not run as a page of the relay's origin (CSP Level 3, section 6.3.2)."""

WITHOUT_BODY = frozenset({204, 205, 304})
"""Statuses of responses without a body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5)."""
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


def downwards(head: Head, *, stream: bool, to_head: bool = False) -> list[tuple[bytes, bytes]]:
    """Return the fields of a response for the client.

    Replace by spaces what HTTP/1.1 cannot carry but HTTP/2 may bring: control characters (RFC 9110, section 5.5). Take
    out what would act on the origin of the relay, where its status page is.

    Args:
        head: the upstream's.
        stream: whether events follow, among which heartbeats and an error may come: then no length is promised.
        to_head: whether it answers HEAD, where the length is that of another response.
    """
    fields = lowered(head.headers)
    # Beside a transfer coding the length is not the body's (RFC 9112, section 6.3).
    has_coding = bool(values(fields, b"transfer-encoding"))
    drops_length = stream or has_coding or (head.status in WITHOUT_BODY and not to_head)
    kept = [
        (name, _CONTROLS.sub(b" ", value))
        for name, value in _end_to_end(fields)
        if _NAME.fullmatch(name)
        and not name.startswith(_KEPT_BACK)
        and name not in _OF_THE_ORIGIN
        and not (drops_length and name == b"content-length")
    ]
    return [*kept, *_SANDBOX]


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
