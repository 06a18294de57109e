"""The blocking wire over httpcore2; ``async_http`` is its twin."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpcore2

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.errors import UsageError, WireError
from unbroken.wire.lines import Line
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


class HttpWire:
    """A :class:`unbroken.wire.contract.Wire` over TCP and TLS, HTTP/1.1 and HTTP/2, with proxies.

    Args:
        proxy: URL of a proxy for every host; ``None`` for the environment's proxies, ``""`` for none.
        verify: ``True`` for the system's trust store, a path to a CA file, an ``SSLContext``, or ``False``.
        http2: whether to offer HTTP/2, without which there is no PING.
        environ: where proxies are looked up; by default ``os.environ``.

    Raises:
        UsageError: the proxy is malformed.
    """

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
        self._lock = threading.Lock()

    def exchange(self, request: Request) -> HttpExchange:
        """See :meth:`unbroken.wire.contract.Wire.exchange`."""
        return HttpExchange(self, request)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()

    def take(self, request: Request) -> _Lane:
        """Return a lane for one exchange: an idle one that can still be used, or a new one.

        Raises:
            UsageError: the environment names a malformed proxy, or the CA file cannot be used.
        """
        route, proxy = ConnectionKey.of(request), self._options.proxy_for(request)
        while lane := self._take_idle(route, proxy):
            if lane.is_fresh():
                return lane
            lane.close()
        return _Lane(self._options, route, proxy)

    def give_back(self, lane: _Lane) -> None:
        """Keep a lane whose exchange has ended cleanly."""
        with self._lock:
            self._idle.append(lane)
            surplus = self._idle.pop(0) if len(self._idle) > MAX_IDLE else None
        if surplus:
            surplus.close()

    def _take_idle(self, route: ConnectionKey, proxy: Proxy | None) -> _Lane | None:
        with self._lock:
            lane = next((lane for lane in reversed(self._idle) if (lane.route, lane.proxy) == (route, proxy)), None)
            if lane:
                self._idle.remove(lane)
        return lane


class _Lane:
    """One connection, which serves one exchange at a time: a pool of one over its own line."""

    def __init__(self, options: PoolOptions, route: ConnectionKey, proxy: Proxy | None) -> None:
        self.route = route
        self.proxy = proxy
        self.line = Line(proxied=proxy is not None)
        self.pool = httpcore2.ConnectionPool(network_backend=self.line, **options.for_route(route, proxy))
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


class HttpExchange:
    """See :class:`unbroken.wire.contract.Exchange`."""

    def __init__(self, wire: HttpWire, request: Request) -> None:
        self._wire = wire
        self._request = request
        self._lane: _Lane | None = None
        self._response: httpcore2.Response | None = None
        self._body: Iterator[bytes] | None = None
        self._failure: WireError | None = None
        self._user: int | None = None  # the thread that is sending or reading
        self.path = Watch(Limits(0, 0, None, 0, 0), time.monotonic())

    def send(self, limits: Limits) -> Head:
        """See :meth:`unbroken.wire.contract.Exchange.send`."""
        with self._alive():
            lane = self._lane = self._wire.take(self._request)
            if self._failure:  # another thread closed the exchange before it had a lane
                raise self._failure
            self.path = Watch(limits, time.monotonic())
            lane.line.serve(self.path)
            self._response = lane.pool.handle_request(to_httpcore(self._request, self._trace, lane.proxy))
            self._body = self._response.iter_stream()
            self.path.answered = True
            return to_head(self._response, lane.proxy)

    def read(self, limits: Limits) -> bytes:
        """See :meth:`unbroken.wire.contract.Exchange.read`."""
        with self._alive():
            self.path.limits = limits
            for chunk in self._body or ():
                if chunk:
                    return chunk
            self._rest()
        return b""

    def close(self) -> None:
        """See :meth:`unbroken.wire.contract.Exchange.close`."""
        self._failure = self._failure or WireError(Failure.CANCELLED)
        lane = self._lane
        if self._user in (None, threading.get_ident()):
            self._drop()
        elif lane:
            lane.line.interrupt()  # the thread that is in it fails, and drops it

    def _trace(self, name: str, info: dict[str, Any]) -> None:
        if begins_request(name, info):
            self.path.begin_request(time.monotonic(), info.get("stream_id"))

    def _rest(self) -> None:
        """Keep the connection after a clean end of the body, or close it."""
        if self._lane is None or self._response is None:
            return
        self._response.close()
        if self._lane.rest():
            self._wire.give_back(self._lane)
        else:
            self._lane.close()
        self._lane = None

    def _drop(self) -> None:
        """Reset the connection, unless the exchange has ended."""
        lane, self._lane = self._lane, None
        if lane:
            lane.close(abort=True)
        self._body = None

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """End the exchange after any exception inside, and raise it as a :class:`WireError`."""
        self._user = threading.get_ident()
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
            self._user = None
            if self._failure:
                self._drop()
