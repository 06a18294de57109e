"""The blocking wire; ``async_http`` is its twin."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.suspicion import PathEvent
from unbroken.errors import UsageError, WireError
from unbroken.wire.clock import clock
from unbroken.wire.exchange import BaseExchange
from unbroken.wire.loops.blocking import Beside, BlockingStream
from unbroken.wire.pool import Pool
from unbroken.wire.proxies import ProxySetting
from unbroken.wire.requests import Destination
from unbroken.wire.resolving import connect
from unbroken.wire.sockets import Steps, Waits, run

if TYPE_CHECKING:
    import ssl

    from unbroken.wire.connection import Http


class HttpWire:
    """A :class:`unbroken.wire.contract.Wire` over TCP and TLS, HTTP/1.1 and HTTP/2, with proxies.

    Args:
        proxy: the paths: URL of a proxy for every host, ``None`` for the environment's proxies, ``""`` for none, or a
            list of proxies and ``"direct"`` in the order of preference.
        verify: ``True`` for the system's trust store, a path to a CA file, an ``SSLContext``, or ``False``.
        http2: whether to offer HTTP/2, without which there is no PING.
        environ: where proxies are looked up; by default ``os.environ``.

    Raises:
        UsageError: the proxy is malformed.
    """

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

    def exchange(self, request: Request, path: int | None = None) -> HttpExchange:
        """See :meth:`unbroken.wire.contract.Wire.exchange`."""
        return HttpExchange(self._pool, request, path)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()


class HttpExchange(BaseExchange[BlockingStream]):
    """See :class:`unbroken.wire.contract.ConnectableExchange`."""

    def __init__(self, pool: Pool, request: Request, path: int | None) -> None:
        super().__init__(pool, request, path)
        self._user: int | None = None  # the thread that is sending or reading

    def connect(self, limits: Limits) -> None:
        """See :meth:`unbroken.wire.contract.ConnectableExchange.connect`."""
        self._user = threading.get_ident()
        try:
            run(self.connecting(limits))
        finally:
            self._leave()

    def send(self, limits: Limits) -> Head | PathEvent:
        """See :meth:`unbroken.wire.contract.Exchange.send`."""
        self._user = threading.get_ident()
        try:
            stream = self._open(limits)
            http = self._begin(stream)
            stream.relimit()
            while http.head is None:
                if event := self._take_event():
                    return event
                stream.wait()
            return self._answered(http.head)
        except BaseException as exc:
            self._end(exc)
            raise
        finally:
            self._leave()

    def read(self, limits: Limits) -> Head | bytes | PathEvent:
        """See :meth:`unbroken.wire.contract.Exchange.read`."""
        if self._failure or self._http is None:
            self._check_open()
            return b""
        if self._head_given and (data := self._http.take()):
            return data
        self._user = threading.get_ident()
        try:
            return self._next(limits, self._http)
        except BaseException as exc:
            self._end(exc)
            raise
        finally:
            self._leave()

    def close(self) -> None:
        """See :meth:`unbroken.wire.contract.Exchange.close`."""
        self._failure = self._failure or WireError(Failure.CANCELLED)
        stream = self._stream
        if self._user in (None, threading.get_ident()):
            self.drop()
        elif stream:
            stream.interrupt()  # the thread that is in it fails, and drops it

    def _open(self, limits: Limits) -> BlockingStream:
        """Return a stream over an idle connection or over a new one."""
        if self._stream:
            self.path.limits = limits
            return self._stream
        destination = self._start(limits)
        if idle := self._pool.take(destination):
            self._stream = BlockingStream(idle.sock, idle.connection, self.path)
            self._check_open()  # another thread may have closed the exchange before it had a stream
            return self._stream
        return run(self._opening(destination))

    def _opening(self, destination: Destination) -> Steps[BlockingStream]:
        connection = self._pool.connection(destination)
        sock = yield from connect(*destination.first_hop, self._remaining)
        self._connected(sock)
        stream = self._stream = BlockingStream(sock, connection, self.path)
        self._check_open()
        while connection.http is None:
            yield from stream.steps()
        return stream

    def connecting(self, limits: Limits) -> Steps[None]:
        """Do as :meth:`connect`, in steps."""
        try:
            stream = yield from self._opening(self._start(limits))
            if (http := stream.http).version == "HTTP/2":
                http.ping()
                while not http.pongs:
                    yield from stream.steps()
        except BaseException as exc:
            self._end(exc)
            raise

    def _next(self, limits: Limits, http: Http) -> Head | bytes | PathEvent:
        """Wait for what comes next, and beside it for a second connection if one is to be tried."""
        stream = self._stream_to_read(limits)
        if limits.probe is None or self._second:
            return self._coming(stream, http)
        with contextlib.closing(self._try_second(limits, limits.probe)) as steps:
            return self._coming(stream, http, Beside(steps))

    def _coming(self, stream: BlockingStream, http: Http, beside: Beside | None = None) -> Head | bytes | PathEvent:
        while (came := self._came(http)) is None:
            stream.wait(beside)
        return came

    def _try_second(self, limits: Limits, start: float) -> Steps[None]:
        """Establish a second connection, in steps."""
        second, error = HttpExchange(self._pool, self._request, self._path_of_second(limits)), None
        while (wait := start - clock()) > 0:
            yield Waits([], [], wait)
        try:
            yield from second.connecting(limits)
        except (WireError, UsageError) as exc:
            error = exc
        self._take_second(second, error)

    def _leave(self) -> None:
        """Record that the thread is done; if another one closed the exchange meanwhile, drop it."""
        self._user = None
        if self._failure:
            self.drop()
