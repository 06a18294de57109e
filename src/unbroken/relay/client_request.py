"""A client's request, while it is received."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import anyio

from unbroken.core.dialect import GatewayError
from unbroken.relay import asgi
from unbroken.relay.headers import lowered, values

MIN_RATE = 16 * 1024
"""Bytes per second that a body must come with on average, once ``receive_timeout`` is used up."""


class Rejection(Exception):
    """The relay refuses a request."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.error = GatewayError(status, code, message)
        self.headers = headers


class ClientLeft(Exception):
    """The client has gone away before its request was whole."""


class ClientRequest:
    """One request of a client.

    Args:
        scope: ASGI's ``scope``.
        receive: ASGI's ``receive``.
        timeout: seconds that may be waited for the body, in addition to the time that :data:`MIN_RATE` allows.
        clock: monotonic seconds.

    Attributes:
        method: such as ``"POST"``.
        path: percent-encoded, as it came.
        query: without ``?``.
        headers: fields, names in lower case.
        received: how many bytes of the body have come.
    """

    def __init__(
        self, scope: asgi.Scope, receive: asgi.Receive, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = lowered(scope["headers"])
        self.http_version: str = scope["http_version"]
        self.received = 0
        self._receive = receive
        self._timeout = timeout
        self._clock = clock
        self._whole = False

    @property
    def has_body(self) -> bool:
        """Whether the request says that it has a body (RFC 9112, section 6.3)."""
        lengths = values(self.headers, b"content-length")
        return bool(values(self.headers, b"transfer-encoding")) or any(length != b"0" for length in lengths)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes.

        Raises:
            ClientLeft: the client went away.
            Rejection: 408, it was too slow.
        """
        waited = 0.0  # only for the client, without the time that the upstream takes to accept the body
        while not self._whole:
            began = self._clock()
            with anyio.move_on_after(self._timeout + self.received / MIN_RATE - waited) as patience:
                message = await self._receive()
            waited += self._clock() - began
            if patience.cancelled_caught:
                raise Rejection(408, "request_timeout", "the request's body did not come in time")
            if message["type"] == "http.disconnect":
                raise ClientLeft
            data: bytes = message.get("body", b"")
            self.received += len(data)
            self._whole = not message.get("more_body", False)
            if data:
                yield data

    async def whole(self, limit: int) -> bytes:
        """Return the whole body, held in memory.

        Raises:
            ClientLeft: the client went away.
            Rejection: 408, it was too slow; 413, it is over ``limit`` bytes.
        """
        lengths = values(self.headers, b"content-length")
        if any(int(length) > limit for length in lengths if length.isdigit()):
            raise self._too_large(limit)
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise self._too_large(limit)
        return bytes(body)

    async def left(self) -> None:
        """Wait until the client goes away. Call it only once the body is whole."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @staticmethod
    def _too_large(limit: int) -> Rejection:
        return Rejection(413, "request_too_large", f"the request's body is over {limit} bytes (--max-body)")
