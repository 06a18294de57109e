"""The wire over httpcore2 for asyncio and trio; ``http`` is its blocking twin."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpcore2

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.errors import UsageError, WireError
from unbroken.wire.async_lines import AsyncLine
from unbroken.wire.mapping import wire_error
from unbroken.wire.proxies import Proxy, ProxyRules
from unbroken.wire.requests import (
    KEEP_IDLE,
    MAX_IDLE,
    ConnectionKey,
    PoolOptions,
    begins_request,
    is_idle,
    to_head,
    to_httpcore,
)
from unbroken.wire.watch import Watch


class AsyncHttpWire:
    """A :class:`unbroken.wire.contract.AsyncWire`; arguments and errors as :class:`unbroken.wire.http.HttpWire`."""

    def __init__(
        self,
        *,
        proxy: str | None = None,
        verify: bool | str | Path | ssl.SSLContext = True,
        http2: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        rules = ProxyRules(proxy, os.environ if environ is None else environ)
        self._options = PoolOptions(rules, verify, http2=http2)
        self._idle: list[_AsyncLane] = []

    def exchange(self, request: Request, content: AsyncIterable[bytes] | None = None) -> AsyncHttpExchange:
        """See :meth:`unbroken.wire.contract.AsyncWire.exchange`.

        Args:
            request: what to send.
            content: a body of any size, sent as it comes instead of the request's own; its length is the request's
                ``Content-Length``, or else it is sent in chunks.
        """
        return AsyncHttpExchange(self, request, content)

    async def aclose(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()

    def take(self, request: Request) -> _AsyncLane:
        """As :meth:`unbroken.wire.http.HttpWire.take`."""
        route, proxy = ConnectionKey.of(request), self._options.proxy_for(request)
        while lane := self._take_idle(route, proxy):
            if lane.is_fresh():
                return lane
            lane.close()
        return _AsyncLane(self._options, route, proxy)

    def give_back(self, lane: _AsyncLane) -> None:
        """Keep a lane whose exchange has ended cleanly."""
        self._idle.append(lane)
        if len(self._idle) > MAX_IDLE:
            self._idle.pop(0).close()

    def _take_idle(self, route: ConnectionKey, proxy: Proxy | None) -> _AsyncLane | None:
        lane = next((lane for lane in reversed(self._idle) if (lane.route, lane.proxy) == (route, proxy)), None)
        if lane:
            self._idle.remove(lane)
        return lane


class _AsyncLane:
    """One connection, which serves one exchange at a time: a pool of one over its own line."""

    def __init__(self, options: PoolOptions, route: ConnectionKey, proxy: Proxy | None) -> None:
        self.route = route
        self.proxy = proxy
        self.line = AsyncLine(proxied=proxy is not None)
        self.pool = httpcore2.AsyncConnectionPool(network_backend=self.line, **options.for_route(route, proxy))
        self._idle_since = 0.0

    def rest(self) -> bool:
        """Prepare for another exchange; return whether that is possible."""
        self._idle_since = time.monotonic()
        return is_idle(list(self.pool.connections)) and self.line.is_reusable()

    def is_fresh(self) -> bool:
        """Return whether an idle lane can still be used."""
        return time.monotonic() - self._idle_since < KEEP_IDLE and self.line.is_reusable()

    def close(self, *, abort: bool = False) -> None:
        self.line.close(abort=abort)  # httpcore2's pool holds only memory


class AsyncHttpExchange:
    """See :class:`unbroken.wire.contract.AsyncExchange`."""

    def __init__(self, wire: AsyncHttpWire, request: Request, content: AsyncIterable[bytes] | None) -> None:
        self._wire = wire
        self._request = request
        self._content = content
        self._lane: _AsyncLane | None = None
        self._response: httpcore2.Response | None = None
        self._body: AsyncGenerator[bytes] | None = None
        self._failure: WireError | None = None
        self.path = Watch(Limits(0, 0, None, 0, 0), time.monotonic())

    async def send(self, limits: Limits) -> Head:
        """See :meth:`unbroken.wire.contract.AsyncExchange.send`."""
        async with self._alive():
            lane = self._lane = self._wire.take(self._request)
            self.path = Watch(limits, time.monotonic())
            lane.line.serve(self.path)
            request = to_httpcore(self._request, self._trace, lane.proxy, self._content)
            self._response = await lane.pool.handle_async_request(request)
            self._body = self._response.aiter_stream()
            self.path.answered = True
            return to_head(self._response, lane.proxy)

    async def read(self, limits: Limits) -> bytes:
        """See :meth:`unbroken.wire.contract.AsyncExchange.read`."""
        async with self._alive():
            self.path.limits = limits
            # On uvloop, anyio cannot cancel a task that always has more to read and so never waits.
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._body:
                async for chunk in self._body:
                    if chunk:
                        return chunk
            await self._rest()
        return b""

    async def aclose(self) -> None:
        """See :meth:`unbroken.wire.contract.AsyncExchange.aclose`."""
        self._failure = self._failure or WireError(Failure.CANCELLED)
        await self._drop()

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        if begins_request(name, info):
            self.path.begin_request(time.monotonic(), info.get("stream_id"))

    async def _rest(self) -> None:
        """Keep the connection after a clean end of the body, or close it."""
        if self._lane is None or self._response is None:
            return
        await self._response.aclose()
        if self._lane.rest():
            self._wire.give_back(self._lane)
        else:
            self._lane.close()
        self._lane = None

    async def _drop(self) -> None:
        """Reset the connection, unless the exchange has ended."""
        lane, self._lane = self._lane, None
        if lane:
            lane.close(abort=True)
        body, self._body = self._body, None
        if body:
            with anyio.CancelScope(shield=True), contextlib.suppress(RuntimeError):
                await body.aclose()  # fails if another task is in it, which finds the socket closed

    @contextlib.asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        """End the exchange after any exception inside, and raise it as a :class:`WireError`."""
        try:
            if self._failure:
                raise WireError(self._failure.failure, self._failure.detail)
            yield
        except UsageError:
            raise
        except Exception as exc:
            proxied = self._lane is not None and self._lane.proxy is not None
            self._failure = self._failure or wire_error(exc, sent=self.path.sent, proxied=proxied)
            if self._failure is exc:
                raise
            raise self._failure from exc
        except BaseException:
            self._failure = self._failure or WireError(Failure.CANCELLED)
            raise
        finally:
            if self._failure:
                await self._drop()
