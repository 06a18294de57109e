"""One exchange, the part that does not wait; see ``http`` and ``async_http``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure, Row
from unbroken.core.http import Head, Request
from unbroken.core.suspicion import PathEvent, Recovered, SecondFailed, SecondStands
from unbroken.errors import UsageError, WireError
from unbroken.wire.clock import clock
from unbroken.wire.connection import Connection, Step
from unbroken.wire.mapping import wire_error
from unbroken.wire.monitor import Monitor
from unbroken.wire.pool import Pool
from unbroken.wire.requests import Destination, request_head
from unbroken.wire.resolving import SLICE
from unbroken.wire.sockets import tune
from unbroken.wire.stream import BaseStream

if TYPE_CHECKING:
    from unbroken.wire.connection import Http

StreamT = TypeVar("StreamT", bound=BaseStream)


class BaseExchange(Generic[StreamT]):
    """State and decisions of an exchange over a stream of one loop.

    Attributes:
        path: the clock of the exchange.
    """

    def __init__(self, pool: Pool, request: Request, path: int | None = None) -> None:
        self.path = Monitor(Limits(0, 0, None, 0, 0), clock())
        self._pool = pool
        self._request = request
        self._path_index = path
        self._began = 0.0
        self._destination: Destination | None = None
        self._stream: StreamT | None = None
        self._http: Http | None = None
        self._failure: WireError | None = None
        self._second: Self | None = None
        self._looked_at = 0.0
        self._head_given = False

    def lower_ping(self, interval: float) -> None:
        """See :meth:`unbroken.wire.contract.Exchange.lower_ping`."""
        if self._destination:
            self._pool.lower_ping(self._destination, interval)

    def _start(self, limits: Limits) -> Destination:
        """Start the clock, and return where the request goes.

        Raises:
            UsageError: the environment names a malformed proxy.
            WireError: the exchange was closed.
        """
        self._check_open()
        self._began = self._looked_at = clock()
        self.path = Monitor(limits, self._began)
        destination = self._destination = self._pool.destination(self._request, self._path_index)
        self.path.route = self._pool.record_of(destination)
        self.path.provable = destination.scheme == "https" or destination.proxy is None
        return destination

    def _remaining(self) -> float:
        """Return the seconds that may be waited for a connection.

        Raises:
            WireError: a deadline has passed, or the exchange was closed.
        """
        self._check_open()
        clock.woke(self._looked_at + SLICE)
        now = self._looked_at = clock()
        self.path.check(now)
        return self.path.wait(now)

    def _connected(self, sock: socket.socket) -> None:
        """Take a new socket.

        Raises:
            WireError: the exchange was closed meanwhile.
        """
        if self._failure:
            sock.close()
        self._check_open()
        limits = self.path.limits
        tune(sock, limits.ping or 10.0, limits.idle)

    def _begin(self, stream: BaseStream, *, streamed: bool = False) -> Http:
        """Begin to send the request."""
        destination = stream.connection.destination
        stream.begin(request_head(self._request, destination, streamed=streamed), self._pool.pings(destination))
        self._http = stream.http
        return stream.http

    def _answered(self, head: Head) -> Head:
        """Take the head of the response.

        Raises:
            WireError: the response is the proxy's, which asks for credentials (RFC 9110, section 15.5.8).
        """
        if head.status == 407 and self._destination and self._destination.proxy:
            raise WireError(Failure.PROXY_AUTH, "407")
        self._head_given = True
        return head

    def _came(self, http: Http) -> Head | bytes | PathEvent | None:
        """Return what has come; ``None`` if that is nothing yet."""
        if self.path.event:
            return self._take_event()
        if http.head is not None and not self._head_given:
            return self._answered(http.head)
        if data := http.take():
            return data
        if http.ended:
            assert self._stream is not None
            self._rest(self._stream)
            return b""
        return None

    def _take_event(self) -> PathEvent | None:
        """Return what is to be reported of the path, once."""
        event, self.path.event = self.path.event, None
        if isinstance(event, Recovered):
            self._keep_second()
        return event

    def _path_of_second(self, limits: Limits) -> int | None:
        return self._path_index if limits.probe_path is None else limits.probe_path

    def _take_second(self, second: Self, error: WireError | UsageError | None) -> None:
        """Take a second connection, or the failure to establish it."""
        if error:
            failure = error.failure if isinstance(error, WireError) else Failure.BAD_REQUEST
            self.path.event = SecondFailed(failure, str(error))
        elif self._stream:
            self._second, self.path.event = second, SecondStands()
            self._stream.second_stands()
        else:  # the exchange was closed meanwhile
            second.drop()

    def _keep_second(self) -> None:
        """Make an idle connection of the second one."""
        second, self._second = self._second, None
        if second:
            second.keep()

    def _stream_to_read(self, limits: Limits) -> StreamT:
        """Return the stream, from which the caller waits for the body under these limits from now on."""
        stream = self._stream
        assert stream is not None
        if limits != self.path.limits:
            self.path.limits = limits
            stream.relimit()
        self.path.listens(clock())
        return stream

    def keep(self) -> None:
        """Keep the connection, on which no request was sent."""
        if self._stream:
            self._rest(self._stream)

    def _rest(self, stream: StreamT) -> None:
        """Keep the connection after a clean end of the body, or close it."""
        self._stream = self._http = None
        stream.flush()
        self._heed(stream.connection)
        if stream.reusable:
            stream.detach()
            self._pool.keep(stream.sock, stream.connection)
        else:
            stream.close()

    def _end(self, exc: BaseException) -> None:
        """Reset the connection, and raise the failure that an exception means, if it is to be raised as one.

        Raises:
            WireError: the failure.
        """
        error = self._lose(exc)
        if isinstance(error, WireError) and error.failure.row is Row.LOST:
            self._keep_second()  # for the request, which is sent on it if it is sent again
        self.drop()
        if error is not exc:
            raise error from exc

    def drop(self) -> None:
        """Reset the connection, unless the exchange has ended."""
        stream, self._stream, self._http = self._stream, None, None
        if stream:
            self._heed(stream.connection)
            stream.close(abort=True)
        second, self._second = self._second, None
        if second:
            second.drop()

    def _check_open(self) -> None:
        """Raise the failure that has ended the exchange, if one has."""
        if self._failure:
            raise WireError(self._failure.failure, self._failure.detail)

    def _lose(self, exc: BaseException) -> BaseException:
        """Record what has ended the exchange; return what is to be raised."""
        if isinstance(exc, UsageError):
            return exc
        if not isinstance(exc, Exception):
            self._failure = self._failure or WireError(Failure.CANCELLED)
            return exc
        proxied = self._destination is not None and self._destination.proxy is not None
        self._failure = self._failure or self._named(wire_error(exc, sent=self.path.sent, proxied=proxied))
        return self._failure

    def _named(self, error: WireError) -> WireError:
        """Return the failure under the name of the proxy, if it is the proxy's."""
        destination = self._destination
        answered = self._http is not None and self._http.head is not None and error.failure is not Failure.PROXY_AUTH
        if destination is None or destination.proxy is None or answered:
            return error
        from unbroken.wire.culprits import Way, named

        connection = self._stream.connection if self._stream else None
        step = connection.step if connection else Step.DIAL
        sample = connection.sample if connection else b""
        return named(error, Way(destination.proxy, destination, step, sample, clock() - self._began))

    def _heed(self, connection: Connection) -> None:
        """Record a complaint of the server's about PING."""
        keepalive = self.path.keepalive
        if keepalive and (http := connection.http) and http.version == "HTTP/2" and http.asks_for_calm:
            self._pool.complain(connection.destination, keepalive.step)
