"""A client's request, while it is received."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from unbroken.core.dialect import GatewayError
from unbroken.relay import asgi
from unbroken.relay.headers import lowered, values

if TYPE_CHECKING:
    from unbroken.relay.budget import Holding

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
        root: what stands before the path, as far as the relay takes it off: see :meth:`enter`.
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
        self.root = ""
        self.received = 0
        self._scope = scope
        self._receive = receive
        self._timeout = timeout
        self._clock = clock
        self._whole = False

    def enter(self, secret: str) -> None:
        """Take the secret first segment off the path.

        Raises:
            Rejection: 404, it is not there; nothing else is said.
        """
        if not secret:
            return
        first, _, rest = self.path[1:].partition("/")
        if not hmac.compare_digest(first.encode("latin-1", "replace"), secret.encode()):
            raise Rejection(404, "not_found", "there is nothing here")
        self.root = f"/{secret}"
        self.path = f"/{rest}"

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

    async def whole(self, limit: int, holding: Holding | None = None) -> bytes:
        """Return the whole body, held in memory.

        Args:
            limit: how many bytes it may have.
            holding: where they are counted as they come.

        Raises:
            ClientLeft: the client went away.
            Rejection: 408, it was too slow; 413, it is over ``limit`` bytes; 503, all requests together hold too many.
        """
        lengths = values(self.headers, b"content-length")
        if any(int(length) > limit for length in lengths if length.isdigit()):
            raise self._too_large(limit)
        pieces = []
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                if self.received > limit:
                    raise self._too_large(limit)
                if holding:
                    holding.add(len(chunk))
                pieces.append(chunk)
        return b"".join(pieces)

    @property
    def has_left(self) -> bool:
        """Whether the client is known to have gone away, before its body is read to the end."""
        has_left: Callable[[], bool] | None = self._scope.get(asgi.HAS_LEFT)
        return has_left is not None and has_left()

    @property
    def writer(self) -> asgi.Writer | None:
        """What writes the response without waiting; ``None`` if the server offers nothing but ASGI's ``send``."""
        return self._scope.get(asgi.WRITER)

    def abort(self) -> None:
        """Have the connection reset: what was sent is not read, and would be kept as long as the client is there."""
        self._scope[asgi.ABORT] = True

    @asynccontextmanager
    async def cancelled_by_leaving(self, on_left: Callable[[], object]) -> AsyncGenerator[None]:
        """Cancel what is entered here when the client goes away, after ``on_left`` was called.

        Enter it only once the body is whole.
        """
        register: Callable[[Callable[[], None] | None], None] | None = self._scope.get(asgi.ON_LEFT)
        if register is None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._wait_and_cancel, on_left, tasks.cancel_scope)
                yield
                tasks.cancel_scope.cancel()
            return
        with anyio.CancelScope() as scope:

            def left() -> None:
                on_left()
                scope.cancel()

            register(left)
            try:
                yield
            finally:
                register(None)

    async def _wait_and_cancel(self, on_left: Callable[[], object], scope: anyio.CancelScope) -> None:
        await self.left()
        on_left()
        scope.cancel()

    async def left(self) -> None:
        """Wait until the client goes away. Call it only once the body is whole."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @staticmethod
    def _too_large(limit: int) -> Rejection:
        return Rejection(413, "request_too_large", f"the request's body is over {limit} bytes (--max-body)")
