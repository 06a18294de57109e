"""The parts of ASGI that the relay uses (ASGI specification, version 3, "HTTP & WebSocket")."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from unbroken.core.http import Headers

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

ABORT = "unbroken.abort"
"""Key of the scope by which the application asks a server that knows it to reset the connection."""

HAS_LEFT = "unbroken.has_left"
"""Key of the scope by which a server that knows it tells whether the client has gone, though its body is not read."""

ON_LEFT = "unbroken.on_left"
"""Key of the scope by which a server that knows it takes a callback, ``None`` for none: it is called, at once or later,
when the client goes away before the response is complete. To wait for ``receive`` would take a task."""

WRITER = "unbroken.writer"
"""Key of the scope by which a server that knows it offers a :class:`Writer`."""

JSON = b"application/json"

PART = 256 * 1024
"""How many bytes are sent at once, at most."""


class Writer(Protocol):
    """Writes bytes of a body that has begun without waiting, where ``send`` would not have to wait either."""

    @property
    def ready(self) -> bool:
        """Whether ``send`` would write bytes of the body at once."""

    def write(self, data: bytes) -> None:
        """Write them; call it only when :attr:`ready`."""


class Broken(Exception):
    """An exception that makes the server close the connection, because the body is not complete."""


async def start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Send status and headers."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send bytes of the body. An answer that was held comes at once, and is sent in parts.

    By the parts that it accepts a slow client differs from one that accepts nothing.
    """
    if len(data) <= PART:
        await send({"type": "http.response.body", "body": data, "more_body": more})
        return
    for at in range(0, len(data), PART):
        goes_on = more or at + PART < len(data)
        await send({"type": "http.response.body", "body": data[at : at + PART], "more_body": goes_on})


async def answer(
    send: Send, status: int, data: bytes, content_type: bytes = JSON, headers: Headers = (), *, close: bool = False
) -> None:
    """Send a whole response.

    Args:
        send: ASGI's ``send``.
        status: HTTP status.
        data: the body.
        content_type: content type of the body.
        headers: further fields.
        close: end the connection afterwards: part of the request may still be on its way.
    """
    fields = list(headers)
    if status != 204:  # it has no body (RFC 9110, section 8.6)
        fields = [(b"content-type", content_type), (b"content-length", str(len(data)).encode()), *headers]
    await start(send, status, [*fields, *([(b"connection", b"close")] if close else [])])
    await body(send, data, more=False)


async def answer_json(send: Send, status: int, value: Any) -> None:
    """Send a JSON document."""
    await answer(send, status, json.dumps(value).encode())
