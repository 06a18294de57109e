"""Requests about a response that another request has asked for."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from unbroken.core.http import Headers, Request

_OF_THE_BODY = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"expect", b"idempotency-key"}
)


def about(
    request: Request, response: str, method: str, action: str = "", query: Sequence[tuple[str, str]] = ()
) -> Request:
    """Return a request about a response: below the URL that made it, with the same headers and without a body.

    Args:
        request: the request that asked for the response.
        response: the response's id.
        method: the method.
        action: what is appended to the path, such as ``"/cancel"``.
        query: parameters that join those of the URL.
    """
    parts = urlsplit(request.url)
    path = f"{parts.path.rstrip('/')}/{quote(response, safe='')}{action}"
    joined = "&".join(filter(None, [parts.query, urlencode(query, safe="[]")]))
    return Request(method, urlunsplit((parts.scheme, parts.netloc, path, joined, "")), without_body(request.headers))


def without_body(headers: Headers) -> Headers:
    """Return the headers of a request without those that are about its body."""
    return tuple(field for field in headers if field[0].lower() not in _OF_THE_BODY)
