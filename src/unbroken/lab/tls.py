"""TLS on a stream, mostly the server's side of it.

TLS runs over memory buffers: with a socket of `ssl` the caller cannot decide whether close_notify is sent.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from unbroken.lab.raw_stream import BLOCK, RawStream


class TlsRawStream(RawStream):
    """One TLS connection; `handshake` comes first.

    Args:
        sock: the connected socket.
        context: of the side that this is.
        server_hostname: the client's side: the name that the server's certificate must have; None: the server's side.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._is_secure = False

    @property
    def alpn(self) -> str | None:
        """The application protocol that the handshake chose."""
        return self._tls.selected_alpn_protocol()

    async def client_hello(self) -> None:
        """Wait for the client's first bytes.

        Raises:
            ConnectionError: the client left without sending anything.
        """
        while not self._incoming.pending:
            await self._wait_for_more()

    async def handshake(self) -> None:
        """Perform the handshake.

        Raises:
            OSError: the other side left, or the handshake failed (`ssl.SSLError`).
        """
        while not self._is_secure:
            try:
                self._tls.do_handshake()
                self._is_secure = True
            except ssl.SSLWantReadError:
                await self._flush()
                await self._wait_for_more()
            except ssl.SSLError:
                await self._flush()  # the alert
                raise
        await self._flush()
        self._decrypt()  # data may have come with the other side's last message

    async def _write(self, data: bytes) -> None:
        if not self._is_secure:  # a fault breaks the handshake
            await super()._write(data)
            return
        for start in range(0, len(data), BLOCK):
            self._tls.write(data[start : start + BLOCK])
            await self._flush()

    async def _send_close_notify(self) -> None:
        if self._is_secure:
            async with self._sending:
                with suppress(ssl.SSLError):  # also raised while the client's close_notify is missing
                    self._tls.unwrap()
                await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super()._write(self._outgoing.read())

    def _receive(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._is_secure and not self._ended:
            self._decrypt()

    def _decrypt(self) -> None:
        try:
            while data := self._tls.read(BLOCK):
                self._inbox += data
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError:
            self.was_reset = True
        self._leave()  # a close_notify, or bytes that are not TLS
