"""One connection to a server, step by step, each with the time that it took; nothing is requested."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.clock import clock
from unbroken.wire.connection import Connection, Step
from unbroken.wire.culprits import Way, named
from unbroken.wire.mapping import wire_error
from unbroken.wire.requests import Destination
from unbroken.wire.resolving import Address, connect_to, resolve
from unbroken.wire.sockets import CHUNK, Steps, Waits, close, wait_for

if TYPE_CHECKING:
    import ssl

CONNECT = 10.0
"""Seconds for a connection, with name resolution, proxy and TLS, unless the user gives another limit."""


class Reach:
    """An attempt to reach a server, which keeps the connection open if it succeeds.

    Args:
        destination: where to, and by which proxy.
        context: returns the context for TLS.
        limit: seconds for all of it.

    Attributes:
        destination: as above.
        addresses: what the name of the first hop stands for.
        peer: the address that was connected to, ``""`` before.
        local: this machine's own address on that connection.
        seconds: what each step took: ``"dns"``, ``"tcp"``, ``"proxy"`` (asking it for a tunnel) and ``"tls"``.
        connection: what is spoken on the connection, once there is one.
        sock: its socket, non-blocking.
        established_at: when the way to the server stood.
        error: why the server was not reached, under the name of the hop that caused it.
    """

    def __init__(
        self, destination: Destination, context: Callable[[], ssl.SSLContext], *, limit: float = CONNECT
    ) -> None:
        self.destination = destination
        self.addresses: list[Address] = []
        self.peer = self.local = ""
        self.seconds: dict[str, float] = {}
        self.connection: Connection | None = None
        self.sock: socket.socket | None = None
        self.error: WireError | None = None
        self.established_at = 0.0
        self._context = context
        self._limit = limit
        self._began = self._since = clock()

    @property
    def http_version(self) -> str:
        """The HTTP version that is spoken, ``""`` if the server was not reached."""
        return self.connection.http.version if self.connection and self.connection.http else ""

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER; ``None`` without TLS, or if the server was not reached."""
        return self.connection.certificate if self.connection else None

    def steps(self) -> Steps[None]:
        """Reach the server, in steps. A failure is kept in :attr:`error`, and the socket is closed then."""
        self._began = self._since = clock()
        try:
            yield from self._reach()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the user is told
            self.error = self._named(exc)
            self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, with a reset: nothing is to be said on it any more."""
        if self.sock:
            close(self.sock, abort=True)

    def _reach(self) -> Steps[None]:
        host, port = self.destination.first_hop
        self.addresses = yield from resolve(host, port, self._remaining)
        self._took("dns")
        self.sock = yield from connect_to(self.addresses, self._remaining)
        self.peer, self.local = self.sock.getpeername()[0], self.sock.getsockname()[0]
        self._took("tcp")
        self.connection = Connection(self.destination, self._context, http2=True)
        before = self.connection.step
        while self.connection.http is None:
            yield from self.exchange(self._remaining)
            if self.connection.step is not before and before is not Step.SERVER_TLS and self.destination.proxy:
                self._took("proxy")
            before = self.connection.step
        if self.destination.scheme == "https":
            self._took("tls")
        self.established_at = clock()

    def exchange(self, remaining: Callable[[], float]) -> Steps[bool]:
        """Send what is to be sent, and take what comes, once; return whether anything has come.

        Raises:
            WireError: the connection has failed; so do the errors of sockets, TLS and HTTP.
        """
        assert self.sock is not None
        assert self.connection is not None
        self.send()
        yield Waits([self.sock], [], remaining())
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.connection.receive_eof()
            raise WireError(Failure.CLOSED)
        self.connection.receive(data)
        self.send()
        return True

    def send(self) -> None:
        """Send what is to be sent. It is little, and the network takes it."""
        assert self.sock is not None
        assert self.connection is not None
        while data := self.connection.data_to_send():
            self.sock.sendall(data)

    def _remaining(self) -> float:
        left = self._began + self._limit - clock()
        if left <= 0:
            raise WireError(Failure.CONNECT_TIMEOUT, f"none in {self._limit:g} s")
        return left

    def _took(self, step: str) -> None:
        now = clock()
        self.seconds[step], self._since = round(now - self._since, 4), now

    def _named(self, exc: Exception) -> WireError:
        proxy, connection = self.destination.proxy, self.connection
        error = wire_error(exc, sent=False, proxied=proxy is not None)
        if proxy is None:
            return error
        step, sample = (connection.step, connection.sample) if connection else (Step.DIAL, b"")
        return named(error, Way(proxy, self.destination, step, sample, clock() - self._began))


def together(works: Sequence[Steps[None]]) -> Steps[None]:
    """Do several works at once, in steps, until each is done."""
    waits = {work: wait for work in works if (wait := next(work, None))}
    try:
        while waits:
            yield Waits(
                [sock for wait in waits.values() for sock in wait.readers],
                [sock for wait in waits.values() for sock in wait.writers],
                max(0.0, min(wait.seconds for wait in waits.values())),
            )
            waits = {work: wait for work in waits if (wait := next(work, None))}
    finally:
        for work in works:
            work.close()


def do(*works: Steps[None]) -> None:
    """Do several works at once, blocking the thread; Ctrl-C ends them, and closes what they have opened."""
    steps = together(works)
    try:
        for waits in steps:
            wait_for(waits)
    finally:
        steps.close()
