"""Recognition of a chat completion's request."""

from __future__ import annotations

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, asks_for_stream, count


def serves(path: str) -> bool:
    """Return whether chat completions are made at a path (Azure's deployment paths included)."""
    return path.rstrip("/").endswith("/chat/completions")


def read_request(request: Request, body: RequestBody) -> Generation:  # noqa: ARG001 - the body is enough
    """Read any JSON object that is posted to such a path."""
    return Generation(streaming=asks_for_stream(body), choices=count(body.get("n")) or 1)
