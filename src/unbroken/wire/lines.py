"""A line: one connection's network, blocking, as httpcore2's ``network_backend``.

It connects, carries the stream, keeps the deadlines of the exchange that it presently serves, and sends PING. The
decisions are :class:`unbroken.wire.watch.Watch`'s; ``async_lines`` is its twin.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore2

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import Inbound
from unbroken.wire.mapping import wire_error
from unbroken.wire.resolving import connect
from unbroken.wire.sockets import Tcp, Tls, Transport, readable, tune
from unbroken.wire.watch import Watch


class Line(httpcore2.NetworkBackend):
    """The network of one connection.

    Attributes:
        watch: watches the exchange that the line presently serves.
        proxied: whether it leads to a proxy.
        frames: what is seen of the HTTP/2 frames, ``None`` for HTTP/1.1.
    """

    watch: Watch

    def __init__(self, *, proxied: bool) -> None:
        self.proxied = proxied
        self.frames: Inbound | None = None
        self._sock: socket.socket | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect; httpcore2's timeout and options are not used: the watch and :func:`tune` know better."""
        try:
            self._sock = connect(host.strip("[]"), port, self.patience)
        except OSError as exc:
            raise wire_error(exc, sent=False, proxied=self.proxied) from exc
        tune(self._sock, self.watch.limits.ping or 10.0, self.watch.limits.ping_timeout)
        return LineStream(self, Tcp(self._sock, self.patience))

    def patience(self) -> float:
        """Seconds that may be waited now.

        Raises:
            WireError: a limit of the exchange has passed.
        """
        now = time.monotonic()
        self.watch.check(now)
        return self.watch.wait(now)

    def serves_again(self) -> bool:
        """Whether another exchange may use the connection."""
        if self._sock is None or (self.frames and self.frames.goaway):
            return False
        return not readable(self._sock)

    def close(self) -> None:
        """Close the socket now, whatever it is doing."""
        if self._sock:
            self._sock.close()


class LineStream(httpcore2.NetworkStream):
    """The stream that HTTP is spoken over; see httpcore2 for the methods."""

    def __init__(self, line: Line, transport: Transport) -> None:
        self._line = line
        self._transport = transport

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes. Between them PING is sent, and the limits are kept."""
        line = self._line
        while True:
            if ping := line.watch.ping(time.monotonic()):
                self._send(ping)
            try:
                data = self._transport.receive(max_bytes)
            except TimeoutError as exc:
                self._unless_patience(exc)
                continue
            except OSError as exc:
                raise wire_error(exc, sent=line.watch.sent, proxied=line.proxied) from exc
            if not data:
                return self._end()
            if data := line.watch.heard(data, time.monotonic()):
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes of the request."""
        if buffer:
            self._send(buffer)
            self._line.watch.wrote(time.monotonic())

    def close(self) -> None:
        """Close without ceremony: nobody reads a close_notify that is followed by nothing."""
        self._line.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Speak TLS from here on; where HTTP/2 is agreed on, begin to watch its frames."""
        line = self._line
        tls = Tls(self._transport, ssl_context, (server_hostname or "").strip("[]") or None)
        while True:
            try:
                tls.handshake()
                break
            except TimeoutError as exc:
                self._unless_patience(exc)
            except OSError as exc:
                raise wire_error(exc, sent=False, proxied=line.proxied) from exc
        if tls.object.selected_alpn_protocol() == "h2":
            line.frames = Inbound()
            line.watch.speak_http2(line.frames)
        return LineStream(line, tls)

    def get_extra_info(self, info: str) -> Any:
        """``ssl_object`` tells httpcore2 which protocol was agreed on."""
        if info == "ssl_object" and isinstance(self._transport, Tls):
            return self._transport.object
        if info == "is_readable":
            return not self._line.serves_again()
        return None

    def _send(self, data: bytes) -> None:
        try:
            self._transport.send(data)
        except OSError as exc:
            # httpcore2 reads on after this one: a server may answer before it has read all, and then close.
            raise httpcore2.WriteError(exc) from exc

    def _unless_patience(self, exc: TimeoutError) -> None:
        """Tell the kernel's own ETIMEDOUT (the path is dead) from our patience running out."""
        if exc.errno is not None:
            raise wire_error(exc, sent=self._line.watch.sent, proxied=self._line.proxied) from exc

    def _end(self) -> bytes:
        if not self._line.watch.sent:
            raise WireError(Failure.CLOSED)
        return b""
