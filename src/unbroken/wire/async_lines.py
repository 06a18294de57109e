"""A line: one connection's network, for asyncio and trio, as httpcore2's ``network_backend``.

The decisions are :class:`unbroken.wire.watch.Watch`'s; ``lines`` is its blocking twin.
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
        """Connect; httpcore2's timeout and options are not used: the watch knows better."""
        try:
            sock = await connect(host.strip("[]"), port, self.patience)
        except OSError as exc:
            raise self.error(exc) from exc
        self.connected(sock)
        return AsyncLineStream(self, AsyncTcp(sock, self))

    def close(self, *, abort: bool = False) -> None:
        """Close the socket now, whatever it is doing. May be called again, and from another task."""
        self.closed = True
        if self.sock:
            if self.sock.fileno() >= 0:
                anyio.notify_closing(self.sock)
            close(self.sock, abort=abort)


class AsyncLineStream(httpcore2.AsyncNetworkStream):
    """The stream that HTTP is spoken over; see httpcore2 for the methods."""

    def __init__(self, line: AsyncLine, transport: AsyncByteStream) -> None:
        self._line = line
        self._transport = transport

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes. Between them PING is sent, and the limits are kept."""
        line = self._line
        line.listens()
        while True:
            if ping := line.ping():
                await self.write(ping)
            try:
                data = await self._transport.receive(max_bytes)
            except TimeoutError as exc:
                if exc.errno is not None:  # the kernel's ETIMEDOUT, not our patience
                    raise line.error(exc) from exc
                continue
            except (OSError, anyio.ClosedResourceError) as exc:
                raise line.error(exc) from exc
            if not data:
                return line.end()
            if data := line.heard(data):
                return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. That it fails is no news: there may still be an answer to read, and then how it ended."""
        if buffer and not self._line.broken:
            try:
                await self._transport.send(buffer)
            except OSError as exc:
                self._line.broken = exc

    async def aclose(self) -> None:
        """Leave it to the line's owner, who knows whether to close politely."""

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Speak TLS from here on."""
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
        """``ssl_object`` tells httpcore2 which protocol was agreed on."""
        if info == "ssl_object" and isinstance(self._transport, AsyncTls):
            return self._transport.object
        if info == "is_readable":
            return not self._line.serves_again()
        return None
