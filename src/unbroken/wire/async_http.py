"""The wire over httpcore2 for asyncio and trio; ``http`` is its blocking twin."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpcore2

from unbroken.core.http import Head, Request
from unbroken.core.turn import Limits
from unbroken.wire.async_lines import AsyncLine
from unbroken.wire.mapping import wire_error
from unbroken.wire.proxies import Proxy, ProxyRules
from unbroken.wire.requests import KEEP_IDLE, MAX_IDLE, PoolOptions, Route, begins_request, to_head, to_httpcore
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
        self._idle: list[_Lane] = []

    def exchange(self, request: Request) -> AsyncHttpExchange:
        """See :meth:`unbroken.wire.contract.AsyncWire.exchange`."""
        return AsyncHttpExchange(self, request)

    async def aclose(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for lane in idle:
            await lane.aclose()

    async def take(self, request: Request) -> _Lane:
        """A lane of the exchange's own: an idle one that is still good, or a fresh one."""
        route = Route.of(request)
        while lane := next((lane for lane in reversed(self._idle) if lane.route == route), None):
            self._idle.remove(lane)
            if lane.is_fresh():
                return lane
            await lane.aclose()
        return _Lane(self._options, route, self._options.proxy_for(request))

    async def give_back(self, lane: _Lane) -> None:
        """Keep a lane whose exchange has ended cleanly."""
        self._idle.append(lane)
        if len(self._idle) > MAX_IDLE:
            await self._idle.pop(0).aclose()


class _Lane:
    """One connection, serving one exchange at a time: a pool of one over a line of our own."""

    def __init__(self, options: PoolOptions, route: Route, proxy: Proxy | None) -> None:
        self.route = route
        self.proxy = proxy
        self.line = AsyncLine(proxied=proxy is not None)
        self.pool = httpcore2.AsyncConnectionPool(network_backend=self.line, **options.for_route(route, proxy))
        self._idle_since = 0.0

    def rest(self) -> bool:
        """Get ready for another exchange; whether that is possible."""
        self._idle_since = time.monotonic()
        return [connection.is_idle() for connection in self.pool.connections] == [True] and self.line.serves_again()

    def is_fresh(self) -> bool:
        """Whether an idle lane is still good."""
        return time.monotonic() - self._idle_since < KEEP_IDLE and self.line.serves_again()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.line.aclose()
            await self.pool.aclose()


class AsyncHttpExchange:
    """See :class:`unbroken.wire.contract.AsyncExchange`."""

    def __init__(self, wire: AsyncHttpWire, request: Request) -> None:
        self._wire = wire
        self._request = request
        self._lane: _Lane | None = None
        self._response: httpcore2.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self.path = Watch(Limits(0, 0, None, 0, 0), time.monotonic())

    async def send(self, limits: Limits) -> Head:
        """See :meth:`unbroken.wire.contract.AsyncExchange.send`."""
        lane = self._lane = await self._wire.take(self._request)
        watch = self.path = lane.line.watch = Watch(limits, time.monotonic())
        if lane.line.frames:
            watch.speak_http2(lane.line.frames)
        async with self._alive():
            self._response = await lane.pool.handle_async_request(to_httpcore(self._request, self._trace, lane.proxy))
            self._body = self._response.aiter_stream()
            return to_head(self._response)

    async def read(self, limits: Limits) -> bytes:
        """See :meth:`unbroken.wire.contract.AsyncExchange.read`."""
        self.path.limits = limits
        if self._body is None:
            return b""
        async with self._alive():
            async for chunk in self._body:
                if chunk:
                    return chunk
        await self._rest()
        return b""

    async def aclose(self) -> None:
        """See :meth:`unbroken.wire.contract.AsyncExchange.aclose`."""
        lane, self._lane = self._lane, None
        self._body = None
        if lane:
            await lane.aclose()

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        if begins_request(name, info):
            self.path.begin_request(time.monotonic(), info.get("stream_id"))

    async def _rest(self) -> None:
        lane, self._lane = self._lane, None
        self._body = None
        if lane is None or self._response is None:
            return
        await self._response.aclose()
        if lane.rest():
            await self._wire.give_back(lane)
        else:
            await lane.aclose()

    @contextlib.asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        """Whatever is raised inside ends the exchange, and says so in our own terms."""
        try:
            yield
        except Exception as exc:
            proxied = self._lane is not None and self._lane.proxy is not None
            await self.aclose()
            raise wire_error(exc, sent=self.path.sent, proxied=proxied) from exc
        except BaseException:
            await self.aclose()
            raise
