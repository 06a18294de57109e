"""A line: one connection's network, blocking, as httpcore2's ``network_backend``.

It connects, carries the stream, enforces the deadlines of the exchange that it currently serves, and sends PING.
:class:`unbroken.wire.watch.Watch` makes the decisions; ``async_lines`` is the twin.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2

from unbroken.wire.line import BaseLine
from unbroken.wire.resolving import connect
from unbroken.wire.sockets import ByteStream, Tcp, Tls, close, wake


class Line(BaseLine, httpcore2.NetworkBackend):
    """The network of one connection."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect. httpcore2's timeout and options are not used: the watch has the limits."""
        try:
            sock = connect(host.strip("[]"), port, self.patience)
        except OSError as exc:
            raise self.error(exc) from exc
        self.connected(sock)
        return LineStream(self, Tcp(sock, self))

    def close(self, *, abort: bool = False) -> None:
        """Close the socket. May be called again, but not while another thread is in it."""
        self.closed = True
        if self.sock:
            close(self.sock, abort=abort)

    def interrupt(self) -> None:
        """Wake the thread that is in the socket; its operation fails."""
        self.closed = True
        if self.sock:
            wake(self.sock)


class LineStream(httpcore2.NetworkStream):
    """The stream that carries HTTP; see httpcore2 for the methods."""

    def __init__(self, line: Line, transport: ByteStream) -> None:
        self._line = line
        self._transport = transport

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes; meanwhile send PING and enforce the limits."""
        line = self._line
        line.listens()
        while True:
            if ping := line.ping():
                self.write(ping)
            try:
                data = self._transport.receive(max_bytes)
            except TimeoutError as exc:
                if exc.errno is not None:  # the kernel's ETIMEDOUT, not the end of the patience
                    raise line.error(exc) from exc
                continue
            except OSError as exc:
                raise line.error(exc) from exc
            if not data:
                return line.end()
            if data := line.heard(data):
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. Ignore errors: the response may still arrive, and reading reports how the connection ended."""
        if buffer and not self._line.broken:
            try:
                self._transport.send(buffer)
            except OSError as exc:
                self._line.broken = exc

    def close(self) -> None:
        """Do nothing: the line's owner closes the socket, by FIN or by reset."""

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Start TLS."""
        tls = Tls(self._transport, ssl_context, (server_hostname or "").strip("[]") or None)
        while True:
            try:
                tls.handshake()
                break
            except TimeoutError as exc:
                if exc.errno is not None:
                    raise self._line.error(exc) from exc
            except OSError as exc:
                raise self._line.error(exc) from exc
        self._line.agreed(tls.object.selected_alpn_protocol())
        return LineStream(self._line, tls)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks for; its ``ssl_object`` has the negotiated protocol."""
        if info == "ssl_object" and isinstance(self._transport, Tls):
            return self._transport.object
        if info == "is_readable":
            return not self._line.is_reusable()
        return None
