"""Blocking byte transports: TCP, and TLS over any other transport.

TLS runs over memory buffers, so that it can also run inside TLS (an https proxy), and so that a read that times out in
the middle of a record can simply be asked again.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Protocol

CHUNK = 64 * 1024

Patience = Callable[[], float]
"""Says how many seconds may be waited now; raises when it is time to give up."""


class Transport(Protocol):
    """Moves bytes."""

    def receive(self, max_bytes: int) -> bytes:
        """The next bytes, ``b""`` at the end.

        Raises:
            TimeoutError: none came within the present patience; it may be asked again.
        """

    def send(self, data: bytes) -> None:
        """Send all of ``data``, as long as the patience lasts."""


class Tcp:
    """A connected TCP socket."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._patience = patience

    def receive(self, max_bytes: int) -> bytes:
        """See :class:`Transport`."""
        self._sock.settimeout(self._patience())
        return self._sock.recv(max_bytes)

    def send(self, data: bytes) -> None:
        """See :class:`Transport`."""
        view = memoryview(data)
        while view:
            self._sock.settimeout(self._patience())
            try:
                view = view[self._sock.send(view) :]
            except TimeoutError as exc:
                if exc.errno is not None:  # the kernel's ETIMEDOUT: the path is dead
                    raise


class Tls:
    """TLS over another transport. :meth:`handshake` comes first."""

    def __init__(self, below: Transport, context: ssl.SSLContext, hostname: str | None) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._in, self._out, server_hostname=hostname)

    def handshake(self) -> None:
        """Go on with the handshake; after a :class:`TimeoutError` it may be asked again.

        Raises:
            ssl.SSLError: it failed.
        """
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._fill()
            else:
                self._flush()
                return

    def receive(self, max_bytes: int) -> bytes:
        """See :class:`Transport`; an end without close_notify raises :class:`ssl.SSLEOFError`."""
        while True:
            try:
                return self.object.read(max_bytes)
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def send(self, data: bytes) -> None:
        """See :class:`Transport`."""
        view = memoryview(data)
        while view:
            view = view[self.object.write(view) :]
            self._flush()

    def _fill(self) -> None:
        self._flush()
        if data := self._below.receive(CHUNK):
            self._in.write(data)
        else:
            self._in.write_eof()

    def _flush(self) -> None:
        if self._out.pending:
            self._below.send(self._out.read())


def tune(sock: socket.socket, interval: float, timeout: float) -> None:
    """Let the kernel look after the path too: TCP keepalive, and a limit for what stays unacknowledged.

    Args:
        sock: a TCP socket, connected or not.
        interval: seconds of silence before a probe and between probes; rounded up to a second.
        timeout: seconds after which unacknowledged data or probes mean that the path is dead.
    """
    seconds = max(1, round(interval))
    probes = max(1, round(timeout / seconds))
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE" if sys.platform != "darwin" else "TCP_KEEPALIVE", seconds),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", seconds),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", probes),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", round((interval + timeout) * 1000)),
    ]
    for level, name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # an option that this system lacks is no reason to fail
                sock.setsockopt(level, option, value)


def readable(sock: socket.socket) -> bool:
    """Whether a read would return at once. An idle connection on which it would has been closed, or soon will be."""
    if sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
