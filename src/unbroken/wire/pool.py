"""What the exchanges of one wire share: options, idle connections, and what is known of PING on each path."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unbroken.core.http import Request
from unbroken.core.route import RouteRecord
from unbroken.wire.connection import Connection
from unbroken.wire.keepalive import Complaints, KeepaliveMonitor, LearnedIntervals
from unbroken.wire.proxies import ProxyRules, ProxySetting
from unbroken.wire.requests import Destination
from unbroken.wire.sockets import close, readable

if TYPE_CHECKING:
    import ssl

KEEP_IDLE = 15.0
"""Seconds for which an idle connection is kept. Longer saves little: behind a NAT it may be dead by then."""

MAX_IDLE = 8
"""How many idle connections are kept."""


class Idle(NamedTuple):
    """A connection that serves no exchange at present; its socket belongs to no loop."""

    sock: socket.socket
    connection: Connection
    since: float


class Pool:
    """The options of a wire, and its idle connections. It may be used by several threads.

    Args:
        proxy: the paths; see :class:`unbroken.wire.proxies.ProxyRules`.
        verify: see :func:`unbroken.wire.tls.client_context`. Loaded for the first https URL.
        http2: whether to offer HTTP/2.
        environ: where proxies are looked up; by default ``os.environ``.

    Raises:
        UsageError: the proxy is malformed.

    Attributes:
        complaints: what servers said of PING.
        learned: the intervals of PING that cuts have taught.
        proxies: the paths to each server.
    """

    def __init__(
        self,
        *,
        proxy: ProxySetting,
        verify: bool | str | Path | ssl.SSLContext,
        http2: bool,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.complaints = Complaints()
        self.learned = LearnedIntervals()
        self.proxies = ProxyRules(proxy, os.environ if environ is None else environ)
        self._verify = verify
        self._http2 = http2
        self._context: ssl.SSLContext | None = None
        self._idle: list[Idle] = []
        self._lock = threading.Lock()

    def destination(self, request: Request, path: int | None = None) -> Destination:
        """Return the destination of a request.

        Args:
            request: what to send.
            path: index of the path to take; ``None`` for the one that later turns begin with.

        Raises:
            UsageError: the environment names a malformed proxy.
        """
        proxies = self.proxies
        return Destination.of(request, proxies.choose(request.url) if path is None else proxies.all(request.url)[path])

    def record_of(self, destination: Destination) -> RouteRecord:
        """Return what is known of a path before anything is sent on it."""
        return RouteRecord(
            host=destination.authority,
            proxy=destination.proxy.url if destination.proxy else "",
            secure=destination.scheme == "https",
            offers_http2=self._http2 and destination.scheme == "https",
        )

    def pings(self, destination: Destination) -> KeepaliveMonitor:
        """Return the PINGs of an exchange that begins now."""
        now = time.monotonic()
        return KeepaliveMonitor(now, self.complaints.step(destination), self.learned.get(destination, now))

    def lower_ping(self, destination: Destination, interval: float) -> None:
        """Send PING at this interval, in seconds, to a destination whose server has not complained of it."""
        if not self.complaints.step(destination):
            self.learned.record(destination, interval, time.monotonic())

    def complain(self, destination: Destination, step: int) -> None:
        """Record a server's complaint about PINGs that were sent at this step; it outranks what was learned."""
        self.complaints.record(destination, step)
        self.learned.forget(destination)

    def connection(self, destination: Destination) -> Connection:
        """Return a connection that is still to be established.

        Raises:
            UsageError: the CA file cannot be used.
        """
        return Connection(destination, self._client_context, http2=self._http2)

    def take(self, destination: Destination) -> Idle | None:
        """Return an idle connection that can still be used, if there is one."""
        while idle := self._newest(destination):
            if time.monotonic() - idle.since < KEEP_IDLE and not readable(idle.sock):
                return idle
            close(idle.sock)
        return None

    def keep(self, sock: socket.socket, connection: Connection) -> None:
        """Keep a connection whose exchange has ended cleanly."""
        with self._lock:
            self._idle.append(Idle(sock, connection, time.monotonic()))
            surplus = self._idle.pop(0) if len(self._idle) > MAX_IDLE else None
        if surplus:
            close(surplus.sock)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            close(each.sock)

    def _newest(self, destination: Destination) -> Idle | None:
        with self._lock:
            idle = next((idle for idle in reversed(self._idle) if idle.connection.destination == destination), None)
            if idle:
                self._idle.remove(idle)
        return idle

    def _client_context(self) -> ssl.SSLContext:
        if self._context is None:
            from unbroken.wire.tls import client_context

            self._context = client_context(self._verify)
        return self._context
