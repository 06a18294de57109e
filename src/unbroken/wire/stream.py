"""A connection's network stream during one exchange, the part that is the same in every loop.

A loop adds the waiting: :mod:`unbroken.wire.loops`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.clock import clock
from unbroken.wire.connection import Connection
from unbroken.wire.keepalive import KeepaliveMonitor
from unbroken.wire.mapping import wire_error
from unbroken.wire.monitor import Monitor
from unbroken.wire.requests import RequestHead
from unbroken.wire.sockets import CHUNK, close, readable
from unbroken.wire.tcp import tcp_state

if TYPE_CHECKING:
    from unbroken.wire.connection import Http


class BaseStream:
    """The socket of a connection while it serves one exchange.

    Args:
        sock: connected and non-blocking.
        connection: what is sent on it, and what becomes of what comes.
        monitor: the clock of the exchange.

    Attributes:
        failure: why nothing more will come. It is raised once all that came before it has been taken.
    """

    def __init__(self, sock: socket.socket, connection: Connection, monitor: Monitor) -> None:
        self.sock = sock
        self.connection = connection
        self.monitor = monitor
        self.failure: WireError | None = None
        self._received_before = connection.received
        self._idle_frames_before = 0
        self._unsent: bytes | memoryview = b""
        self._look_at = 0.0
        self._was_sending = False
        self._write_failed = False
        self._took_all = False

    @property
    def http(self) -> Http:
        """The connection's HTTP, once the connection is established."""
        assert self.connection.http is not None
        return self.connection.http

    @property
    def sending(self) -> bool:
        """Whether a part of the request has not been accepted by the network yet."""
        http = self.connection.http
        return bool(self._unsent) or (http is not None and http.waits_for_room)

    @property
    def reusable(self) -> bool:
        """Whether the connection can serve another exchange."""
        refused = self.failure or self._write_failed or self._unsent
        fresh = not self.monitor.sent
        return not refused and (fresh or self.http.reusable) and not readable(self.sock)

    def begin(self, request: RequestHead, pings: KeepaliveMonitor) -> None:
        """Write the head of the request, and the body if it is in memory. HTTP/1.1 has no PING."""
        http, now = self.http, clock()
        http.send_request(request)
        keepalive = None
        if http.version == "HTTP/2":
            keepalive, self._idle_frames_before = pings, http.idle_frames
        self.monitor.begin_request(now, keepalive)

    def relimit(self) -> None:
        """Take note of other limits."""
        self._look_at = 0.0

    def second_stands(self) -> None:
        """Record that a second connection stands."""
        now = clock()
        self.monitor.take_tcp(now, tcp_state(self.sock))
        self.monitor.stood(now)
        self.relimit()

    # Calls of a loop

    def watch(self, now: float) -> None:
        """Learn what no byte tells: that the process did not run, what TCP knows, that the path does not answer."""
        monitor = self.monitor
        monitor.runs(now, clock.away)
        if monitor.tcp_is_due(now):
            monitor.take_tcp(now, tcp_state(self.sock))
        monitor.suspect(now)

    def look(self) -> float:
        """Enforce the deadlines and write a PING if one is due; return the seconds until that must be done again.

        The clock is not asked about more than the time while bytes come.

        Raises:
            WireError: a deadline has passed.
        """
        now, sending = clock(), self.sending
        if now >= self._look_at or sending is not self._was_sending:
            self.watch(now)
            self.monitor.check(now, sending=sending)
            self.ping(now)
            self._look_at, self._was_sending = now + self.monitor.wait(now, sending=sending), sending
        return self._look_at - now

    def send(self) -> None:
        """Send what is to be sent, as far as the network accepts it now.

        Write errors are ignored: the response may still arrive, and reading reports how the connection ended.
        """
        of_request = self.sending
        while not self._write_failed and (data := self._unsent or self.connection.data_to_send()):
            self._unsent = data
            try:
                count = self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._write_failed = True
                break
            self._unsent = data[count:] if count < len(data) else b""
            self.monitor.wrote(clock(), of_request=of_request)
        self._unsent = b""

    def flush(self) -> None:
        """Send what is to be sent; what the network does not accept now is sent later."""
        self.send()

    def receive(self) -> bool:
        """Read what has come; return whether anything has. A failure is kept in :attr:`failure`."""
        try:
            data = self.sock.recv(CHUNK)
            self._took_all = len(data) < CHUNK
            self._take(data)
        except BlockingIOError:
            return False
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is told to who waits for the response
            self.fail(exc)
        return True

    def ping(self, now: float) -> None:
        """Write a PING if one is due."""
        if self.monitor.ping_is_due(now) and (http := self.http).version == "HTTP/2" and not http.ended:
            http.ping()
            self.monitor.pinged(now)

    def fail(self, exc: Exception) -> None:
        """Record why nothing more will come; the first failure counts."""
        if self.failure is None:
            proxied = self.connection.destination.proxy is not None
            self.failure = self._explained(wire_error(exc, sent=self.monitor.sent, proxied=proxied))

    def detach(self) -> None:
        """Leave the socket to another stream."""

    def close(self, *, abort: bool = False) -> None:
        """Close the socket now, in any state; see :func:`unbroken.wire.sockets.close`."""
        self.failure = self.failure or WireError(Failure.CANCELLED)
        close(self.sock, abort=abort)

    def _take(self, data: bytes) -> None:
        connection, monitor, now = self.connection, self.monitor, clock()
        if not data:
            connection.receive_eof()
            raise WireError(Failure.CLOSED)
        http = connection.http
        pongs, responding = (http.pongs, http.responding) if http and http.version == "HTTP/2" else (0, 0)
        bytes_before, awaits_head = (http.response_bytes, http.head is None) if http else (0, True)
        try:
            connection.receive(data)
        finally:
            monitor.heard(now, of_response=not http or http.version != "HTTP/2" or http.responding > responding)
            if http and http.response_bytes > bytes_before:
                monitor.responded(now, awaits_head=awaits_head)
        idle_frames = 0
        if http and http.version == "HTTP/2":
            idle_frames = http.idle_frames - self._idle_frames_before
            if http.pongs > pongs and monitor.keepalive:
                monitor.keepalive.answered(now)
        received = connection.received - self._received_before
        monitor.limit_floods(now, received, idle_frames, answered=http is not None and http.head is not None)

    def _explained(self, error: WireError) -> WireError:
        """Return the failure with the server's own explanation, if it gave one."""
        http = self.connection.http
        if (
            not http
            or http.version != "HTTP/2"
            or http.goaway is None
            or error.failure not in (Failure.RESET, Failure.CLOSED)
        ):
            return error
        failure = Failure.TOO_MANY_PINGS if http.asks_for_calm else error.failure
        return WireError(failure, f"after GOAWAY {http.goaway.error}")
