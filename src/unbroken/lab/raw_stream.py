"""Bytes to and from one socket, with every way to end a connection: reset, close, close without close_notify.

asyncio's transports hide these, so the stream reads and writes the socket itself; it needs a selector event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress

BLOCK = 65_536
"""Bytes that are read, or encrypted, at a time."""

_INBOX_LIMIT = 1_048_576  # unread bytes at which the socket is no longer read
_HEARING = 0.05  # seconds to wait for the first bytes of the other side
_LINGER = 1.0  # seconds to wait for the other side to close too
_LINGER_OPTION = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class RawStream:
    """One TCP connection.

    It always reads, so that it notices at once when the other side leaves.

    Attributes:
        left: set when the other side has closed or reset the connection.
        was_reset: whether it was a reset.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.left = asyncio.Event()
        self.was_reset = False
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._inbox = bytearray()
        self._news = asyncio.Event()  # something arrived, the other side left, or the stream was ended here
        self._ended = False
        self._is_full = False
        self._sending = asyncio.Lock()
        sock.setblocking(False)
        with suppress(OSError):  # the other side may have gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock, self._on_readable)

    async def read(self) -> bytes:
        """Return the bytes that have arrived, as soon as there are any; empty when either side has ended."""
        while not self._ended and not self._inbox and not self.left.is_set():
            await self._wait_for_news()
        return b"" if self._ended else self._take(len(self._inbox))

    async def read_exactly(self, count: int) -> bytes:
        """Read exactly `count` bytes.

        Raises:
            ConnectionError: the connection ended before.
        """
        while len(self._inbox) < count:
            await self._wait_for_more()
        return self._take(count)

    async def read_until(self, separator: bytes) -> bytes:
        """Read the bytes up to and including `separator`.

        Raises:
            ConnectionError: the connection ended before, or the separator did not come within 64 KiB.
        """
        while (index := self._inbox.find(separator)) < 0:
            if len(self._inbox) > BLOCK:
                raise ConnectionError("no separator in sight")
            await self._wait_for_more()
        return self._take(index + len(separator))

    async def peek(self) -> int:
        """Return the first unread byte without consuming it.

        Raises:
            ConnectionError: the connection ended before.
        """
        while not self._inbox:
            await self._wait_for_more()
        return self._inbox[0]

    async def wait_until_heard(self) -> None:
        """Wait, for a moment at most, until the other side has sent something.

        By then it knows that it is connected. A reset can arrive before that, and few clients are prepared for it.
        """
        if not self._news.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _HEARING)

    async def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            OSError: the connection is over.
        """
        async with self._sending:
            await self._write(data)

    async def shut(self, *, close_notify: bool = True) -> None:
        """Send FIN, over TLS after a close_notify or without. Call `linger` and `close` afterwards."""
        if self._ended:
            return
        self._end()
        if close_notify:
            with suppress(OSError):
                await self._send_close_notify()
        self.send_eof()

    def send_eof(self) -> None:
        """Send FIN and go on reading."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """Wait for the other side to close too, after `shut`.

        A socket that is closed while bytes arrive answers them with a reset, which is not a plain close.
        """
        if not self.is_closed:
            await self.wait_until_left(_LINGER)

    async def wait_until_left(self, seconds: float | None) -> None:
        """Wait until the other side leaves, for at most `seconds`; None: for ever."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.left.wait(), seconds)

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed here."""
        return self._sock.fileno() < 0

    def reset(self) -> None:
        """Close at once with RST."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OPTION)
        self.close()

    def close(self) -> None:
        """Close the socket. May be called again."""
        self._end()
        if not self.is_closed:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    async def _write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def _send_close_notify(self) -> None:
        """Send TLS's close_notify; plain TCP has none."""

    def _end(self) -> None:
        self._ended = True
        self._news.set()

    def _take(self, count: int) -> bytes:
        data = bytes(self._inbox[:count])
        del self._inbox[:count]
        if self._is_full and not self.is_closed and not self.left.is_set():
            self._is_full = False
            self._loop.add_reader(self._sock, self._on_readable)
        return data

    async def _wait_for_news(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _wait_for_more(self) -> None:
        if self._ended or self.left.is_set():
            raise ConnectionError("the connection is over")
        await self._wait_for_news()

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(BLOCK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.was_reset = True
            data = b""
        if data:
            self._receive(data)
        else:
            self._leave()
        if len(self._inbox) >= _INBOX_LIMIT:
            self._is_full = True
            self._loop.remove_reader(self._sock)
        self._news.set()

    def _receive(self, data: bytes) -> None:
        if not self._ended:  # otherwise the socket is only drained
            self._inbox += data

    def _leave(self) -> None:
        self._loop.remove_reader(self._sock)
        self.left.set()
