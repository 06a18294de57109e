"""What a line knows and decides, whether it waits blocking (``lines``) or not (``async_lines``)."""

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
        frames: what is seen of the HTTP/2 frames, ``None`` for HTTP/1.1.
        sock: the connected socket.
        closed: whether it was closed here.
        broken: why nothing can be written any more.
    """

    def __init__(self, *, proxied: bool) -> None:
        self.proxied = proxied
        self.frames: Inbound | None = None
        self.sock: socket.socket | None = None
        self.closed = False
        self.broken: OSError | None = None
        self._watch: Watch

    def serve(self, watch: Watch) -> None:
        """Serve an exchange that this watch watches."""
        self._watch = watch
        if self.frames:
            watch.speak_http2(self.frames)

    def connected(self, sock: socket.socket) -> None:
        """The socket to use. It is tuned here, because httpcore2's socket options do not reach one behind a proxy."""
        self.sock = sock
        if self.closed:  # meanwhile, by another thread or task, which found no socket
            sock.close()
        limits = self._watch.limits
        tune(sock, limits.ping or 10.0, limits.ping_timeout)

    def agreed(self, protocol: str | None) -> None:
        """TLS stands, and this is the protocol to be spoken in it; begin to watch the frames of HTTP/2."""
        if protocol == "h2":
            self.frames = Inbound()
            self._watch.speak_http2(self.frames)

    def serves_again(self) -> bool:
        """Whether another exchange may use the connection."""
        if self.sock is None or self.closed or self.broken or (self.frames and self.frames.goaway):
            return False
        return not readable(self.sock)

    # What a stream asks and tells

    def patience(self, *, reading: bool = True) -> float:
        """Seconds that may be waited now.

        Raises:
            WireError: a limit of the exchange has passed, or it was closed here.
        """
        if self.closed:
            raise WireError(Failure.CANCELLED)
        now = time.monotonic()
        self._watch.check(now, reading=reading)
        return self._watch.wait(now, reading=reading)

    def listens(self) -> None:
        """Somebody listens from now on."""
        self._watch.listens(time.monotonic())

    def ping(self) -> bytes:
        """A PING that is due, or ``b""``."""
        return self._watch.ping(time.monotonic())

    def wrote(self) -> None:
        """Bytes were accepted by the network."""
        self._watch.wrote(time.monotonic())

    def heard(self, data: bytes) -> bytes:
        """Bytes have come; return those that HTTP shall see."""
        return self._watch.heard(data, time.monotonic())

    def end(self) -> bytes:
        """The other side has ended the connection; return ``b""`` where only HTTP can tell whether it may.

        Raises:
            WireError: it may not.
        """
        if self.frames and self.broken:
            raise self.error(self.broken)
        if self.frames or self.closed or not self._watch.sent:
            raise self.error(WireError(Failure.CLOSED))
        return b""

    def error(self, exc: Exception) -> WireError:
        """What an exception of the network means."""
        if self.closed:
            return WireError(Failure.CANCELLED)
        error = wire_error(exc, sent=self._watch.sent, proxied=self.proxied)
        goaway = self.frames and self.frames.goaway
        if goaway and error.failure in (Failure.RESET, Failure.CLOSED):
            return WireError(error.failure, f"after GOAWAY {goaway.error}")
        return error
