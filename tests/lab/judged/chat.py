"""What the clients here have in common: one chat completion, streamed, over the standard library alone.

Nothing here is good or bad yet: what a client makes of an end, an error or a status is its own.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

BODY = json.dumps({"model": "lab", "stream": True, "messages": [{"role": "user", "content": "Hello"}]})
LOST = (OSError, http.client.HTTPException)
"""What a connection that is lost raises."""

Event = dict[str, Any]


def ask() -> http.client.HTTPResponse:
    """Send the question; return the response, of whatever status."""
    url = urlsplit(os.environ["OPENAI_BASE_URL"])
    host = url.hostname or ""
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port)
    connection.request("POST", f"{url.path}/chat/completions", BODY, {"content-type": "application/json"})
    return connection.getresponse()


def pieces(response: http.client.HTTPResponse) -> Iterator[str]:
    """Yield the data of each event until the body ends, in whatever way that raises nothing."""
    buffer = b""
    while data := response.read1(65536):
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        yield from (line[6:].decode() for line in lines if line.startswith(b"data: "))


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Yield each event as JSON, until ``[DONE]`` or the end of the body."""
    for piece in pieces(response):
        if piece == "[DONE]":
            return
        yield json.loads(piece)


def text_of(event: Event) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices") or [])


def finish_of(event: Event) -> str:
    return next((choice["finish_reason"] for choice in event.get("choices") or [] if choice.get("finish_reason")), "")


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
