"""A line: one connection's network, for asyncio and trio, as httpcore2's ``network_backend``.

The decisions are :class:`unbroken.wire.watch.Watch`'s; ``lines`` is its blocking twin.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.abc
import httpcore2
from anyio.streams.tls import TLSAttribute, TLSStream

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import Inbound
from unbroken.wire.mapping import wire_error
from unbroken.wire.sockets import readable, tune
from unbroken.wire.watch import Watch


class AsyncLine(httpcore2.AsyncNetworkBackend):
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
        self._base: anyio.abc.SocketStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect; httpcore2's timeout and options are not used: the watch and :func:`tune` know better."""
        try:
            with anyio.move_on_after(self.patience()):
                self._base = await anyio.connect_tcp(host.strip("[]"), port)
        except OSError as exc:
            raise wire_error(exc, sent=False, proxied=self.proxied) from exc
        if self._base is None:
            self.patience()
            raise WireError(Failure.CONNECT_TIMEOUT)
        tune(self._socket(self._base), self.watch.limits.ping or 10.0, self.watch.limits.ping_timeout)
        return AsyncLineStream(self, self._base)

    def patience(self, *, pinging: bool = True) -> float:
        """Seconds that may be waited now, or, without ``pinging``, until the next limit.

        Raises:
            WireError: a limit of the exchange has passed.
        """
        now = time.monotonic()
        self.watch.check(now)
        return self.watch.wait(now, pinging=pinging)

    def serves_again(self) -> bool:
        """Whether another exchange may use the connection."""
        if self._base is None or (self.frames and self.frames.goaway):
            return False
        return not readable(self._socket(self._base))

    async def aclose(self) -> None:
        """Close the socket now, whatever it is doing: without a close_notify, which nobody would read."""
        if self._base:
            await anyio.aclose_forcefully(self._base)

    def _socket(self, stream: anyio.abc.SocketStream) -> socket.socket:
        sock: socket.socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        return sock


class AsyncLineStream(httpcore2.AsyncNetworkStream):
    """The stream that HTTP is spoken over; see httpcore2 for the methods."""

    def __init__(self, line: AsyncLine, stream: anyio.abc.ByteStream) -> None:
        self._line = line
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes. Between them PING is sent, and the limits are kept."""
        line = self._line
        while True:
            if ping := line.watch.ping(time.monotonic()):
                await self._send(ping)
            data: bytes | None = None
            try:
                with anyio.move_on_after(line.patience()):
                    data = await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return self._end()
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
                raise self._error(exc) from exc
            if data and (data := line.watch.heard(data, time.monotonic())):
                return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes of the request."""
        if buffer:
            await self._send(buffer)
            self._line.watch.wrote(time.monotonic())

    async def aclose(self) -> None:
        """Close without ceremony."""
        await self._line.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Speak TLS from here on; where HTTP/2 is agreed on, begin to watch its frames."""
        line = self._line
        tls: TLSStream | None = None
        hostname = (server_hostname or "").strip("[]") or None
        try:
            with anyio.move_on_after(line.patience()):
                # "Standard compatible" makes an end without close_notify an error; the closing ceremony that it would
                # also mean is skipped by closing the socket below.
                tls = await TLSStream.wrap(
                    self._stream, hostname=hostname, ssl_context=ssl_context, server_side=False, standard_compatible=True
                )
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            raise self._error(exc) from exc
        if tls is None:
            line.patience()
            raise WireError(Failure.CONNECT_TIMEOUT)
        if tls.extra(TLSAttribute.alpn_protocol) == "h2":
            line.frames = Inbound()
            line.watch.speak_http2(line.frames)
        return AsyncLineStream(line, tls)

    def get_extra_info(self, info: str) -> Any:
        """``ssl_object`` tells httpcore2 which protocol was agreed on."""
        if info == "ssl_object":
            return self._stream.extra(TLSAttribute.ssl_object, None)
        if info == "is_readable":
            return not self._line.serves_again()
        return None

    async def _send(self, data: bytes) -> None:
        try:
            # Unlike a read, a write cannot be asked again, so it is not interrupted for a PING.
            with anyio.move_on_after(self._line.patience(pinging=False)):
                await self._stream.send(data)
                return
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
            # httpcore2 reads on after this one: a server may answer before it has read all, and then close.
            raise httpcore2.WriteError(exc) from exc
        self._line.patience()  # says which limit it was
        raise WireError(Failure.IDLE_TIMEOUT, "the network takes no more bytes")

    def _error(self, exc: Exception) -> WireError:
        return wire_error(exc, sent=self._line.watch.sent, proxied=self._line.proxied)

    def _end(self) -> bytes:
        if not self._line.watch.sent:
            raise WireError(Failure.CLOSED)
        return b""
