"""State and decisions of a line, the same for the blocking one (``lines``) and the other (``async_lines``)."""

from __future__ import annotations

import socket
import time

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import Inbound
from unbroken.wire.mapping import wire_error
from unbroken.wire.sockets import readable, tune
from unbroken.wire.watch import Watch


class BaseLine:
    """The network of one connection; a :class:`unbroken.wire.sockets.Pacer`.

    Attributes:
        proxied: whether it leads to a proxy.
        frames: the filter of incoming HTTP/2 frames, ``None`` for HTTP/1.1.
        sock: the connected socket.
        closed: whether it was closed here.
        broken: the error after which nothing can be written any more.
    """

    def __init__(self, *, proxied: bool) -> None:
        self.proxied = proxied
        self.frames: Inbound | None = None
        self.sock: socket.socket | None = None
        self.closed = False
        self.broken: OSError | None = None
        self._watch: Watch

    def serve(self, watch: Watch) -> None:
        """Serve the exchange of this watch."""
        self._watch = watch
        if self.frames:
            watch.speak_http2(self.frames)

    def connected(self, sock: socket.socket) -> None:
        """Use this socket. Tune it here, because httpcore2's socket options do not reach one behind a proxy."""
        self.sock = sock
        if self.closed:  # by another thread or task, before there was a socket
            sock.close()
        limits = self._watch.limits
        tune(sock, limits.ping or 10.0, limits.ping_timeout)

    def agreed(self, protocol: str | None) -> None:
        """Take the protocol that TLS negotiated; for HTTP/2, begin to filter the frames."""
        if protocol == "h2":
            self.frames = Inbound()
            self._watch.speak_http2(self.frames)

    def is_reusable(self) -> bool:
        """Return whether another exchange may use the connection."""
        if self.sock is None or self.closed or self.broken or (self.frames and self.frames.goaway):
            return False
        return not readable(self.sock)

    # Calls of the stream

    def patience(self, *, reading: bool = True) -> float:
        """Return the seconds that may be waited now.

        Raises:
            WireError: a limit of the exchange has passed, or it was closed here.
        """
        if self.closed:
            raise WireError(Failure.CANCELLED)
        now = time.monotonic()
        self._watch.check(now, reading=reading)
        return self._watch.wait(now, reading=reading)

    def listens(self) -> None:
        """Record that a read begins."""
        self._watch.listens(time.monotonic())

    def ping(self) -> bytes:
        """Return a PING that is due, or ``b""``."""
        return self._watch.ping(time.monotonic())

    def wrote(self) -> None:
        """Record that the network accepted bytes."""
        self._watch.wrote(time.monotonic())

    def heard(self, data: bytes) -> bytes:
        """Record bytes that have come; return those for HTTP."""
        return self._watch.heard(data, time.monotonic())

    def end(self) -> bytes:
        """Handle the other side's end of the connection; return ``b""`` if only HTTP knows whether it is a failure.

        Raises:
            WireError: it is a failure.
        """
        if self.frames and self.broken:
            raise self.error(self.broken)
        if self.frames or self.closed or not self._watch.sent:
            raise self.error(WireError(Failure.CLOSED))
        return b""

    def error(self, exc: Exception) -> WireError:
        """Convert an exception of the network to a wire error."""
        if self.closed:
            return WireError(Failure.CANCELLED)
        error = wire_error(exc, sent=self._watch.sent, proxied=self.proxied)
        goaway = self.frames and self.frames.goaway
        if goaway and error.failure in (Failure.RESET, Failure.CLOSED):
            return WireError(error.failure, f"after GOAWAY {goaway.error}")
        return error
