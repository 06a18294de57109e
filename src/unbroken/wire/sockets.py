"""Blocking byte transports: TCP, and TLS over any other transport.

TLS runs over memory buffers, so that it can also run inside TLS (an https proxy), and so that a read that times out in
the middle of a record can simply be repeated.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys
from typing import Protocol

CHUNK = 64 * 1024
"""Bytes that are read, or encrypted, at a time."""

_ONE_WAIT = 0.025
"""Longest wait, in seconds, of a thread that cannot be woken."""

_ONE_WAIT_TO_READ = _ONE_WAIT if sys.platform == "win32" else float("inf")
"""Only on Windows, Ctrl-C does not interrupt a socket that waits."""

_ABORT = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Pacer(Protocol):
    """The limits of a transport's waits; it also records writes."""

    def patience(self, *, reading: bool = True) -> float:
        """Return the seconds that may be waited now; raise when it is time to give up."""

    def wrote(self) -> None:
        """Record that the network accepted bytes."""


class ByteStream(Protocol):
    """A transport of bytes."""

    def receive(self, max_bytes: int) -> bytes:
        """Return the next bytes, ``b""`` at the end.

        Raises:
            TimeoutError: none came within the present patience; it may be called again.
        """

    def send(self, data: bytes) -> None:
        """Send all of ``data``, as long as the patience lasts."""


class Tcp:
    """A connected TCP socket."""

    def __init__(self, sock: socket.socket, pacer: Pacer) -> None:
        self._sock = sock
        self._pacer = pacer

    def receive(self, max_bytes: int) -> bytes:
        """See :class:`ByteStream`."""
        self._sock.settimeout(min(self._pacer.patience(), _ONE_WAIT_TO_READ))
        return self._sock.recv(max_bytes)

    def send(self, data: bytes) -> None:
        """See :class:`ByteStream`."""
        view = memoryview(data)
        while view:
            self._sock.settimeout(min(self._pacer.patience(reading=False), _ONE_WAIT))
            try:
                view = view[self._sock.send(view) :]
                self._pacer.wrote()
            except TimeoutError as exc:
                if exc.errno is not None:  # the kernel's ETIMEDOUT: the path is dead
                    raise


class TlsBuffers:
    """The part of TLS that does not wait: its state, and the encrypted bytes in both directions."""

    def __init__(self, context: ssl.SSLContext, hostname: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=hostname)

    def arrived(self, data: bytes) -> None:
        """Take encrypted bytes.

        Raises:
            ssl.SSLEOFError: the connection ended. OpenSSL itself would treat that as a clean end if the context allows
                it (``OP_IGNORE_UNEXPECTED_EOF``), and callers may pass such contexts.
        """
        if not data:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "TLS ended without close_notify")
        self.incoming.write(data)


class Tls:
    """TLS over another transport. Call :meth:`handshake` first."""

    def __init__(self, below: ByteStream, context: ssl.SSLContext, hostname: str | None) -> None:
        self._below = below
        self._tls = TlsBuffers(context, hostname)
        self.object = self._tls.object

    def handshake(self) -> None:
        """Go on with the handshake; after a :class:`TimeoutError` it may be called again.

        Raises:
            ssl.SSLError: it failed.
        """
        while True:
            try:
                self.object.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert with the reason
                raise

    def receive(self, max_bytes: int) -> bytes:
        """See :class:`ByteStream`; an end without close_notify raises :class:`ssl.SSLEOFError`."""
        while True:
            try:
                return self.object.read(max_bytes)
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def send(self, data: bytes) -> None:
        """See :class:`ByteStream`."""
        for start in range(0, len(data), CHUNK):
            self.object.write(data[start : start + CHUNK])
            self._flush()

    def _fill(self) -> None:
        self._flush()
        self._tls.arrived(self._below.receive(CHUNK))

    def _flush(self) -> None:
        if self._tls.outgoing.pending:
            self._below.send(self._tls.outgoing.read())


_LONGEST_PROBING = 32_000.0
"""Seconds; about the longest that Linux accepts for keepalive."""


def tune(sock: socket.socket, interval: float, timeout: float) -> None:
    """Let the kernel check the path too: TCP keepalive, and a limit for unacknowledged data.

    Args:
        sock: a TCP socket, connected or not.
        interval: seconds of silence before a probe and between probes; rounded up to a second.
        timeout: seconds after which unacknowledged data or probes mean that the path is dead.
    """
    interval, timeout = min(interval, _LONGEST_PROBING), min(timeout, _LONGEST_PROBING)  # limits may be infinite
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
            with contextlib.suppress(OSError):  # ignore an option that this system lacks
                sock.setsockopt(level, option, value)


def readable(sock: socket.socket) -> bool:
    """Return whether a read would return at once. If so, an idle connection has been closed, or soon will be."""
    if sock.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def close(sock: socket.socket, *, abort: bool = False) -> None:
    """Close a socket.

    Args:
        sock: may be closed already. No other thread may be waiting in it: it would go on waiting, perhaps in another
            socket that has the same number by then. See :func:`wake`.
        abort: reset the connection, without a FIN before. A FIN says only that nothing more will be *sent*: many
            proxies (such as v2ray) then let the response go on for some time, and its cost.
    """
    if abort:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    sock.close()


def wake(sock: socket.socket) -> None:
    """Wake the thread that is waiting in a socket for bytes. (One that waits to send wakes up by itself.)"""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # which the other side does not see
