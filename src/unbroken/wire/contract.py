"""The contract between a driver and a wire.

* An exchange ends within 100 ms of being closed or cancelled, in every phase, before the headers too: a request left
  running costs money.
* Bytes reach the caller as soon as they arrive.
* Every failure is a :class:`unbroken.errors.WireError`; nothing else is raised but cancellation, Ctrl-C and, before
  anything happens, a :class:`unbroken.errors.UsageError` about a proxy or a CA file.
* An exchange has its connection to itself; after a clean end the connection is kept for a while and used again.
* After a failure an exchange stays failed: reading on raises the same failure again.
* A path that does not answer is no failure: ``send`` (while it waits for the headers) and ``read`` report
  :class:`unbroken.core.suspicion.Suspected`, and the exchange goes on with the next ``read``. If the limits ask for
  it, a second connection is tried beside it (``Limits.probe``), without the request and on the same thread; whether it
  stands is reported too. It *stands* when TLS with the server is established and, over HTTP/2, a PING was answered: a
  proxy's consent proves nothing. Without TLS a connection to the server itself must do; through a proxy nothing proves
  it. It is closed with its exchange, in every phase, unless the suspected path answers or is lost: then it is kept as
  an idle connection, which the next exchange takes.

``connect``, ``send`` and ``read`` take the limits that apply from then on (:class:`unbroken.core.actions.Limits`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from unbroken.core.actions import Limits
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.route import RouteRecord
from unbroken.core.suspicion import PathEvent


class Path(Protocol):
    """The state of the connection of an exchange."""

    @property
    def round_trip(self) -> float | None:
        """Seconds that the last answered PING took, ``None`` before the first."""

    @property
    def sent(self) -> bool:
        """Whether any byte of the request may have left."""

    @property
    def received(self) -> int:
        """Bytes received on this connection during the exchange, as HTTP sees them (after TLS)."""

    def unanswered(self, now: float) -> float | None:
        """Return the seconds for which a PING, or else TCP, has been unanswered, ``None`` if none is."""

    def silent(self, now: float) -> float:
        """Return the seconds since the last byte of the response, or of the request before it; PING does not count."""

    @property
    def record(self) -> RouteRecord:
        """What is known of the path and of PING on it."""


class Exchange(Protocol):
    """One request and its response, blocking."""

    @property
    def path(self) -> Path:
        """The state of the connection; another object after :meth:`send` has begun."""

    def send(self, limits: Limits) -> Head | PathEvent:
        """Connect, send the request and wait for the headers. After an event of the path, :meth:`read` goes on.

        Raises:
            WireError: the network failed, or a limit passed.
        """

    def read(self, limits: Limits) -> Head | bytes | PathEvent:
        """Return what comes next: the headers if :meth:`send` has not, bytes of the body, ``b""`` at its clean end.

        Raises:
            WireError: the network failed, or a limit passed.
        """

    def lower_ping(self, interval: float) -> None:
        """Send PING at this interval, in seconds, on this path from now on and for an hour."""

    def close(self) -> None:
        """End the exchange now. May be called at any time and more than once.

        Another thread that is sending or reading (another task, in the async twin) gets ``CANCELLED``.
        """


class ConnectableExchange(Exchange, Protocol):
    """An exchange over sockets of the wire's own: its connection can be established before the request is sent."""

    def connect(self, limits: Limits) -> None:
        """Establish a new connection until it stands; :meth:`send` then uses it.

        Raises:
            WireError: the network failed, or a limit passed.
        """


class Wire(Protocol):
    """A factory of exchanges, blocking."""

    def paths(self, request: Request) -> Paths:
        """Return the paths to the server of a request.

        Raises:
            UsageError: the environment names a malformed proxy.
        """

    def prefer(self, request: Request, path: int) -> None:
        """Begin later turns to this server with the path of this index, for a while."""

    def exchange(self, request: Request, path: int | None = None) -> Exchange:
        """Return a new exchange; nothing happens before :meth:`Exchange.send`.

        Args:
            request: what to send.
            path: index of the path to take, ``None`` for the one that turns begin with.
        """

    def close(self) -> None:
        """Close the connections that are kept."""


class AsyncExchange(Protocol):
    """One request and its response, for asyncio and trio; see :class:`Exchange`."""

    @property
    def path(self) -> Path:
        """As :attr:`Exchange.path`."""

    async def send(self, limits: Limits) -> Head | PathEvent:
        """As :meth:`Exchange.send`."""

    async def read(self, limits: Limits) -> Head | bytes | PathEvent:
        """As :meth:`Exchange.read`."""

    def lower_ping(self, interval: float) -> None:
        """As :meth:`Exchange.lower_ping`."""

    async def aclose(self) -> None:
        """As :meth:`Exchange.close`; not itself cancelled."""


class AsyncConnectableExchange(AsyncExchange, Protocol):
    """As :class:`ConnectableExchange`."""

    async def connect(self, limits: Limits) -> None:
        """As :meth:`ConnectableExchange.connect`."""


class PouringExchange(AsyncExchange, Protocol):
    """An exchange that can hand on bytes as they come, without a task in between."""

    async def pour(self, limits: Limits, sink: Callable[[bytes], bool]) -> None:
        """Call ``sink`` with the next bytes of the body, as they come, until it returns false or something else comes.

        Then go on with :meth:`read`, which also reports how the body ended. It may return at any time, and does so at
        once where there is no event loop that calls: ``sink`` is called from the event loop, between two tasks, and
        must neither wait, nor call the exchange, nor raise.

        Raises:
            WireError: the network failed, or a limit passed.
        """


class AsyncWire(Protocol):
    """A factory of exchanges, for asyncio and trio."""

    def paths(self, request: Request) -> Paths:
        """As :meth:`Wire.paths`."""

    def prefer(self, request: Request, path: int) -> None:
        """As :meth:`Wire.prefer`."""

    def exchange(self, request: Request, path: int | None = None) -> AsyncExchange:
        """As :meth:`Wire.exchange`."""

    async def aclose(self) -> None:
        """As :meth:`Wire.close`."""
