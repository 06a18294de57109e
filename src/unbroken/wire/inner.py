"""A second wire, over any given transport of httpx2 or httpx.

The transport owns the sockets. So there is no PING, no path is ever suspected, and a blocking call can last as long as
its read timeout, which is set from the limits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import anyio

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.route import RouteRecord
from unbroken.errors import WireError
from unbroken.wire.clock import clock


class InnerPath:
    """The known state of a given transport's connection; see :class:`unbroken.wire.contract.Path`."""

    round_trip: float | None = None

    def __init__(self) -> None:
        self.sent = False
        self.received = 0
        self.record = RouteRecord(sends_ping=False)
        self._heard_at = clock()

    def unanswered(self, now: float) -> float | None:  # noqa: ARG002 - there is no PING here
        """See :meth:`unbroken.wire.contract.Path.unanswered`."""
        return None

    def silent(self, now: float) -> float:
        """Return the seconds since the last bytes that the transport handed on."""
        return max(0.0, now - self._heard_at)

    def answered(self) -> None:
        """Record that the response's head has come."""
        now = clock()
        self.record = RouteRecord(sends_ping=False, waited=now - self._heard_at)
        self._heard_at = now

    def heard(self, chunk: bytes) -> None:
        """Record bytes that have come."""
        self.received += len(chunk)
        self._heard_at = clock()


class _Exchange:
    """The common part of both exchanges."""

    def __init__(self, library: ModuleType, inner: Any, request: Request) -> None:
        self.path = InnerPath()
        self._library = library
        self._inner = inner
        self._request = request
        self._response: Any = None

    def _outgoing(self, limits: Limits) -> Any:
        request = self._request
        self.path.sent = True  # the transport does not say: it may have been sent
        return self._library.Request(
            request.method,
            request.url,
            headers=list(request.headers),
            content=request.body,
            extensions={"timeout": self._timeouts(limits)},
        )

    def lower_ping(self, interval: float) -> None:
        """Do nothing: there is no PING here."""

    def _timeouts(self, limits: Limits) -> dict[str, float | None]:
        caller = limits.caller
        return {
            "connect": _shorter(limits.connect, caller.connect),
            "read": _shorter(self._longest_wait(limits), caller.read),
            "write": _shorter(limits.idle, caller.write),
            "pool": limits.connect,
        }

    def _longest_wait(self, limits: Limits) -> float:
        until = limits.until
        return limits.idle if until is None else max(0.001, min(limits.idle, until - clock()))

    def _head(self, response: Any) -> Head:
        self._response = response
        self.path.answered()
        version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "replace")
        return Head(response.status_code, tuple(response.headers.raw), version)

    def _error(self, exc: Exception, limits: Limits) -> WireError:
        """Convert an error of the library to a wire error."""
        library = self._library
        if isinstance(exc, WireError):
            return exc
        if isinstance(exc, library.ConnectTimeout | library.ConnectError | library.PoolTimeout):
            self.path.sent = False
        if isinstance(exc, library.TimeoutException):
            return self._timeout(exc, limits)
        failure = next((found for name, found in _FAILURES if isinstance(exc, getattr(library, name))), Failure.RESET)
        return WireError(failure, str(exc).partition("\n")[0])

    def _timeout(self, exc: Exception, limits: Limits) -> WireError:
        caller = limits.caller
        if isinstance(exc, self._library.ConnectTimeout | self._library.PoolTimeout):
            is_callers = caller.connect is not None and caller.connect <= limits.connect
            return WireError(Failure.CALLER_TIMEOUT, "connect") if is_callers else WireError(Failure.CONNECT_TIMEOUT)
        if limits.until is not None and clock() >= limits.until:
            return WireError(Failure.DEADLINE)
        if caller.read is not None and caller.read <= limits.idle:
            return WireError(Failure.CALLER_TIMEOUT, "read")
        return WireError(Failure.IDLE_TIMEOUT)


_FAILURES = (
    ("ConnectError", Failure.CONNECTION_REFUSED),
    ("ProxyError", Failure.PROXY_REFUSED),
    ("UnsupportedProtocol", Failure.BAD_REQUEST),
    ("LocalProtocolError", Failure.BAD_REQUEST),
    ("RemoteProtocolError", Failure.TRUNCATED),
    ("NetworkError", Failure.RESET),
)
"""The library's errors; the first that fits applies."""


class InnerExchange(_Exchange):
    """See :class:`unbroken.wire.contract.Exchange`."""

    def send(self, limits: Limits) -> Head:
        """See :meth:`unbroken.wire.contract.Exchange.send`."""
        try:
            head = self._head(self._inner.handle_request(self._outgoing(limits)))
        except Exception as exc:
            raise self._error(exc, limits) from exc
        self._body: Iterator[bytes] = iter(self._response.stream)
        return head

    def read(self, limits: Limits) -> bytes:
        """See :meth:`unbroken.wire.contract.Exchange.read`."""
        try:
            for chunk in self._body:
                if chunk:
                    self.path.heard(chunk)
                    return chunk
        except Exception as exc:
            self.close()
            raise self._error(exc, limits) from exc
        self.close()
        return b""

    def close(self) -> None:
        """See :meth:`unbroken.wire.contract.Exchange.close`."""
        response, self._response = self._response, None
        self._body = iter(())
        if response is not None:
            response.close()


class AsyncInnerExchange(_Exchange):
    """See :class:`unbroken.wire.contract.AsyncExchange`."""

    _body: AsyncIterator[bytes] | None = None

    async def send(self, limits: Limits) -> Head:
        """See :meth:`unbroken.wire.contract.AsyncExchange.send`."""
        try:
            with anyio.move_on_after(self._longest_wait(limits)):
                head = self._head(await self._inner.handle_async_request(self._outgoing(limits)))
                self._body = aiter(self._response.stream)
                return head
        except Exception as exc:
            raise self._error(exc, limits) from exc
        raise self._over(limits)

    async def read(self, limits: Limits) -> bytes:
        """See :meth:`unbroken.wire.contract.AsyncExchange.read`."""
        if self._body is None:
            return b""
        try:
            with anyio.move_on_after(self._longest_wait(limits)) as scope:
                async for chunk in self._body:
                    if chunk:
                        self.path.heard(chunk)
                        return chunk
        except Exception as exc:
            await self.aclose()
            raise self._error(exc, limits) from exc
        await self.aclose()
        if scope.cancelled_caught:
            raise self._over(limits)
        return b""

    async def aclose(self) -> None:
        """See :meth:`unbroken.wire.contract.AsyncExchange.aclose`."""
        response, self._response = self._response, None
        self._body = None
        if response is not None:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _over(self, limits: Limits) -> WireError:
        over = limits.until is not None and clock() >= limits.until
        return WireError(Failure.DEADLINE if over else Failure.IDLE_TIMEOUT)


class InnerWire:
    """See :class:`unbroken.wire.contract.Wire`; it does not close the transport.

    Args:
        library: ``httpx2`` or ``httpx``.
        inner: a transport of that library.
    """

    def __init__(self, library: ModuleType, inner: Any) -> None:
        self._library = library
        self._inner = inner

    def paths(self, request: Request) -> Paths:  # noqa: ARG002 - the transport knows its way
        """See :meth:`unbroken.wire.contract.Wire.paths`."""
        return Paths()

    def prefer(self, request: Request, path: int) -> None:
        """Do nothing: there is one path."""

    def exchange(self, request: Request, path: int | None = None) -> InnerExchange:  # noqa: ARG002 - there is one
        """See :meth:`unbroken.wire.contract.Wire.exchange`."""
        return InnerExchange(self._library, self._inner, request)

    def close(self) -> None:
        """Do nothing: no connection is kept here."""


class AsyncInnerWire:
    """See :class:`unbroken.wire.contract.AsyncWire`."""

    def __init__(self, library: ModuleType, inner: Any) -> None:
        self._library = library
        self._inner = inner

    def paths(self, request: Request) -> Paths:  # noqa: ARG002 - the transport knows its way
        """See :meth:`unbroken.wire.contract.AsyncWire.paths`."""
        return Paths()

    def prefer(self, request: Request, path: int) -> None:
        """Do nothing: there is one path."""

    def exchange(self, request: Request, path: int | None = None) -> AsyncInnerExchange:  # noqa: ARG002 - there is one
        """See :meth:`unbroken.wire.contract.AsyncWire.exchange`."""
        return AsyncInnerExchange(self._library, self._inner, request)

    async def aclose(self) -> None:
        """Do nothing: no connection is kept here."""


def _shorter(ours: float, callers: float | None) -> float:
    return ours if callers is None else min(ours, callers)
