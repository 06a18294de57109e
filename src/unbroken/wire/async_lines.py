"""A line: one connection's network, for asyncio and trio, as httpcore2's ``network_backend``.

:class:`unbroken.wire.watch.Watch` makes the decisions; ``lines`` is the blocking twin.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import anyio
import httpcore2

from unbroken.wire.async_resolving import connect
from unbroken.wire.async_sockets import AsyncByteStream, AsyncTcp, AsyncTls
from unbroken.wire.line import BaseLine
from unbroken.wire.sockets import close


class AsyncLine(BaseLine, httpcore2.AsyncNetworkBackend):
    """The network of one connection."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect. httpcore2's timeout and options are not used: the watch has the limits."""
        try:
            sock = await connect(host.strip("[]"), port, self.patience)
        except OSError as exc:
            raise self.error(exc) from exc
        self.connected(sock)
        return AsyncLineStream(self, AsyncTcp(sock, self))

    def close(self, *, abort: bool = False) -> None:
        """Close the socket now, in any state. May be called again, and from another task."""
        self.closed = True
        if self.sock:
            if self.sock.fileno() >= 0:
                anyio.notify_closing(self.sock)
            close(self.sock, abort=abort)


class AsyncLineStream(httpcore2.AsyncNetworkStream):
    """The stream that carries HTTP; see httpcore2 for the methods."""

    def __init__(self, line: AsyncLine, transport: AsyncByteStream) -> None:
        self._line = line
        self._transport = transport

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes; meanwhile send PING and enforce the limits."""
        line = self._line
        line.listens()
        while True:
            if ping := line.ping():
                await self.write(ping)
            try:
                data = await self._transport.receive(max_bytes)
            except TimeoutError as exc:
                if exc.errno is not None:  # the kernel's ETIMEDOUT, not the end of the patience
                    raise line.error(exc) from exc
                continue
            except (OSError, anyio.ClosedResourceError) as exc:
                raise line.error(exc) from exc
            if not data:
                return line.end()
            if data := line.heard(data):
                return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. Ignore errors: the response may still arrive, and reading reports how the connection ended."""
        if buffer and not self._line.broken:
            try:
                await self._transport.send(buffer)
            except OSError as exc:
                self._line.broken = exc

    async def aclose(self) -> None:
        """Do nothing: the line's owner closes the socket, by FIN or by reset."""

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Start TLS."""
        tls = AsyncTls(self._transport, ssl_context, (server_hostname or "").strip("[]") or None)
        while True:
            try:
                await tls.handshake()
                break
            except TimeoutError as exc:
                if exc.errno is not None:
                    raise self._line.error(exc) from exc
            except (OSError, anyio.ClosedResourceError) as exc:
                raise self._line.error(exc) from exc
        self._line.agreed(tls.object.selected_alpn_protocol())
        return AsyncLineStream(self._line, tls)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks for; its ``ssl_object`` has the negotiated protocol."""
        if info == "ssl_object" and isinstance(self._transport, AsyncTls):
            return self._transport.object
        if info == "is_readable":
            return not self._line.is_reusable()
        return None
