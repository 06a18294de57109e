"""The wire for asyncio and trio; ``http`` is its blocking twin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.suspicion import PathEvent
from unbroken.errors import UsageError, WireError
from unbroken.wire.async_resolving import connect
from unbroken.wire.clock import async_sleep, clock
from unbroken.wire.exchange import BaseExchange
from unbroken.wire.loops.asyncio import AsyncioStream
from unbroken.wire.loops.trio import TrioStream
from unbroken.wire.pool import Pool
from unbroken.wire.proxies import ProxySetting
from unbroken.wire.requests import Destination, declared_length

if TYPE_CHECKING:
    import ssl

    from unbroken.wire.connection import Http


class AsyncHttpWire:
    """A :class:`unbroken.wire.contract.AsyncWire`; arguments and errors as :class:`unbroken.wire.http.HttpWire`."""

    def __init__(
        self,
        *,
        proxy: ProxySetting = None,
        verify: bool | str | Path | ssl.SSLContext = True,
        http2: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._pool = Pool(proxy=proxy, verify=verify, http2=http2, environ=environ)

    def paths(self, request: Request) -> Paths:
        """See :meth:`unbroken.wire.contract.Wire.paths`."""
        return self._pool.proxies.paths(request.url)

    def prefer(self, request: Request, path: int) -> None:
        """See :meth:`unbroken.wire.contract.Wire.prefer`."""
        self._pool.proxies.prefer(request.url, path)

    def exchange(
        self, request: Request, path: int | None = None, *, content: AsyncIterable[bytes] | None = None
    ) -> AsyncHttpExchange:
        """See :meth:`unbroken.wire.contract.AsyncWire.exchange`.

        Args:
            request: what to send.
            path: index of the path to take.
            content: a body of any size, sent as it comes instead of the request's own; its length is the request's
                ``Content-Length``, or else it is sent in chunks. Where the server refuses the request (status 400 and
                above) before it has all of it, the rest is not asked for.
        """
        return AsyncHttpExchange(self._pool, request, path, content)

    async def aclose(self) -> None:
        """Close the idle connections."""
        self._pool.close()


class AsyncHttpExchange(BaseExchange[AsyncioStream | TrioStream]):
    """See :class:`unbroken.wire.contract.AsyncConnectableExchange` and ``PouringExchange``."""

    def __init__(self, pool: Pool, request: Request, path: int | None, content: AsyncIterable[bytes] | None) -> None:
        super().__init__(pool, request, path)
        self._content = content

    async def connect(self, limits: Limits) -> None:
        """See :meth:`unbroken.wire.contract.AsyncConnectableExchange.connect`."""
        try:
            stream = await self._open_new(self._start(limits))
            if (http := stream.http).version == "HTTP/2":
                http.ping()
                while not http.pongs:
                    await stream.wait()
        except BaseException as exc:
            self._end(exc)
            raise

    async def send(self, limits: Limits) -> Head | PathEvent:
        """See :meth:`unbroken.wire.contract.AsyncExchange.send`."""
        try:
            stream = await self._open(limits)
            http = self._begin(stream, streamed=self._content is not None)
            stream.relimit()
            stream.flush()
            if self._content is not None:
                await _Upload(stream, http, self._content, declared_length(self._request)).run()
            while http.head is None:
                if event := self._take_event():
                    return event
                await stream.wait()
            return self._answered(http.head)
        except BaseException as exc:
            self._end(exc)
            raise

    async def read(self, limits: Limits) -> Head | bytes | PathEvent:
        """See :meth:`unbroken.wire.contract.AsyncExchange.read`."""
        if self._failure or self._http is None:
            self._check_open()
            return b""
        if self._head_given and (data := self._http.take()):
            return data
        try:
            return await self._next(limits, self._http)
        except BaseException as exc:
            self._end(exc)
            raise

    async def pour(self, limits: Limits, sink: Callable[[bytes], bool]) -> None:
        """See :meth:`unbroken.wire.contract.PouringExchange.pour`."""
        if self._failure or self._http is None or not isinstance(self._stream, AsyncioStream):
            return
        if self.path.event or not self._head_given:
            return
        try:
            if (not (data := self._http.take()) or sink(data)) and not self._http.ended:
                self._stream_to_read(limits)
                await self._stream.pour(sink)
        except BaseException as exc:
            self._end(exc)
            raise

    async def aclose(self) -> None:
        """See :meth:`unbroken.wire.contract.AsyncExchange.aclose`."""
        self._failure = self._failure or WireError(Failure.CANCELLED)
        self.drop()

    async def _open(self, limits: Limits) -> AsyncioStream | TrioStream:
        """Return a stream over an idle connection or over a new one."""
        if self._stream:
            self.path.limits = limits
            return self._stream
        destination = self._start(limits)
        if idle := self._pool.take(destination):
            self._stream = _stream_type()(idle.sock, idle.connection, self.path)
            return self._stream
        return await self._open_new(destination)

    async def _open_new(self, destination: Destination) -> AsyncioStream | TrioStream:
        connection = self._pool.connection(destination)
        sock = await connect(*destination.first_hop, self._remaining)
        self._connected(sock)
        stream = self._stream = _stream_type()(sock, connection, self.path)
        while connection.http is None:
            await stream.wait()
        return stream

    async def _next(self, limits: Limits, http: Http) -> Head | bytes | PathEvent:
        """Wait for what comes next, and beside it for a second connection if one is to be tried."""
        stream = self._stream_to_read(limits)
        if limits.probe is None or self._second:
            return await self._coming(stream, http)
        came: Head | bytes | PathEvent | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._try_second, limits, limits.probe, tasks.cancel_scope)
            came = await self._coming(stream, http)
            tasks.cancel_scope.cancel()
        return await self._coming(stream, http) if came is None else came

    async def _coming(self, stream: AsyncioStream | TrioStream, http: Http) -> Head | bytes | PathEvent:
        while (came := self._came(http)) is None:
            await stream.wait()
        return came

    async def _try_second(self, limits: Limits, start: float, scope: anyio.CancelScope) -> None:
        """Establish a second connection, and end the wait for the first."""
        second, error = AsyncHttpExchange(self._pool, self._request, self._path_of_second(limits), None), None
        await async_sleep(max(0.0, start - clock()))
        try:
            await second.connect(limits)
        except (WireError, UsageError) as exc:
            error = exc
        self._take_second(second, error)
        scope.cancel()


class _Upload:
    """A streamed body on its way: one task asks for its pieces, another watches the connection for an early answer."""

    def __init__(
        self,
        stream: AsyncioStream | TrioStream,
        http: Http,
        content: AsyncIterable[bytes],
        length: int | None,
    ) -> None:
        self._stream = stream
        self._http = http
        self._content = content
        self._length = length
        self._room = anyio.Event()

    async def run(self) -> None:
        """Send the body to its end, or until it is refused.

        Raises:
            WireError: the network failed, a limit passed, or the body has not its declared length.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send, tasks.cancel_scope)
            while not self._refused:
                await self._stream.wait()
                self._stream.monitor.event = None  # what is suspected meanwhile is not reported
                if not self._stream.sending:
                    self._room.set()
            tasks.cancel_scope.cancel()

    async def _send(self, scope: anyio.CancelScope) -> None:
        size, monitor = 0, self._stream.monitor
        pieces = aiter(self._content)
        try:
            monitor.awaits_caller = True
            async for piece in pieces:
                monitor.awaits_caller = False
                size += len(piece)
                self._check(size, whole=False)
                self._http.send_body(piece)
                await self._drain()
                monitor.awaits_caller = True
        finally:
            monitor.awaits_caller = False
            self._stream.relimit()
            if isinstance(pieces, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await pieces.aclose()
        self._check(size, whole=True)
        self._http.end_body()
        self._stream.flush()
        scope.cancel()

    async def _drain(self) -> None:
        """Wait until the network has accepted all that was written."""
        self._stream.monitor.listens(clock())
        self._stream.relimit()
        self._stream.flush()
        while self._stream.sending:
            self._room = anyio.Event()
            await self._room.wait()

    def _check(self, size: int, *, whole: bool) -> None:
        if self._length is not None and (size > self._length or (whole and size < self._length)):
            raise WireError(Failure.BAD_REQUEST, "the body has not the length of its Content-Length")

    @property
    def _refused(self) -> bool:
        head = self._http.head
        return self._http.ended or (head is not None and head.status >= 400)


def _stream_type() -> type[AsyncioStream] | type[TrioStream]:
    """Return the stream for the running event loop."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return TrioStream
    if sys.platform == "win32" and isinstance(asyncio.get_running_loop(), asyncio.ProactorEventLoop):
        return TrioStream
    return AsyncioStream
