"""Byte transports for asyncio and trio; ``sockets`` is the blocking twin and has the details.

They wait for the socket and then read it themselves, because asyncio's own transports discard received bytes when a
write fails, and with them the response of a server that refuses a request which is still being sent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Protocol

import anyio

from unbroken.wire.sockets import CHUNK, Pacer, TlsBuffers


class AsyncByteStream(Protocol):
    """A transport of bytes."""

    async def receive(self, max_bytes: int) -> bytes:
        """As :meth:`unbroken.wire.sockets.ByteStream.receive`."""

    async def send(self, data: bytes) -> None:
        """As :meth:`unbroken.wire.sockets.ByteStream.send`."""


class AsyncTcp:
    """A connected, non-blocking TCP socket."""

    def __init__(self, sock: socket.socket, pacer: Pacer) -> None:
        self._sock = sock
        self._pacer = pacer

    async def receive(self, max_bytes: int) -> bytes:
        """See :class:`AsyncByteStream`."""
        while True:
            with anyio.move_on_after(self._pacer.patience()) as scope:
                await anyio.wait_readable(self._sock)  # always: a cancellation is noticed here
            if scope.cancelled_caught:
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(max_bytes)

    async def send(self, data: bytes) -> None:
        """See :class:`AsyncByteStream`."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
                self._pacer.wrote()
            except BlockingIOError:
                with anyio.move_on_after(self._pacer.patience(reading=False)):
                    await anyio.wait_writable(self._sock)


class AsyncTls:
    """TLS over another transport. Call :meth:`handshake` first."""

    def __init__(self, below: AsyncByteStream, context: ssl.SSLContext, hostname: str | None) -> None:
        self._below = below
        self._tls = TlsBuffers(context, hostname)
        self.object = self._tls.object

    async def handshake(self) -> None:
        """As :meth:`unbroken.wire.sockets.Tls.handshake`."""
        while True:
            try:
                self.object.do_handshake()
                return await self._flush()
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert with the reason
                raise

    async def receive(self, max_bytes: int) -> bytes:
        """See :class:`AsyncByteStream`; an end without close_notify raises :class:`ssl.SSLEOFError`."""
        while True:
            try:
                return self.object.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes) -> None:
        """See :class:`AsyncByteStream`."""
        for start in range(0, len(data), CHUNK):
            self.object.write(data[start : start + CHUNK])
            await self._flush()

    async def _fill(self) -> None:
        await self._flush()
        self._tls.arrived(await self._below.receive(CHUNK))

    async def _flush(self) -> None:
        if self._tls.outgoing.pending:
            await self._below.send(self._tls.outgoing.read())
