"""Servers over HTTP/2 for what the lab's is too well-behaved for: a script says what is done at each event of h2's."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events

from wire.servers import RawServer

React = Callable[["Http2Peer", h2.events.Event], None]


class Http2Peer:
    """One connection, as its server sees it.

    Attributes:
        h2: the state of the connection.
        gone: whether the connection is to be closed.
    """

    def __init__(self, sock: socket.socket, react: React) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.gone = False
        self._sock = sock
        self._react = react
        self._later: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something after so long."""
        self._later.append((time.monotonic() + seconds, work))

    def answer(self, body: bytes = b"ok", status: int = 200) -> None:
        """Answer the newest request."""
        stream = self.h2.highest_inbound_stream_id
        self.h2.send_headers(stream, [(":status", str(status))])
        self.h2.send_data(stream, body, end_stream=True)

    def leave(self, code: h2.errors.ErrorCodes) -> None:
        """Send GOAWAY, which covers all that came, and close."""
        self.h2.close_connection(code)
        self.gone = True

    def run(self) -> None:
        """Serve until either side ends the connection."""
        self.h2.initiate_connection()
        while True:
            self._sock.sendall(self.h2.data_to_send())
            if self.gone:
                return
            if not self._wait():
                continue
            if not (data := self._sock.recv(65536)):
                return
            for event in self.h2.receive_data(data):
                self._react(self, event)

    def _wait(self) -> bool:
        """Wait for bytes, or for what is to be done later; return whether bytes came."""
        due = min((due for due, _ in self._later), default=None)
        pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
        wait = None if due is None else max(0.0, due - time.monotonic())
        if pending or select.select([self._sock], [], [], wait)[0]:
            return True
        ready = [work for at, work in self._later if at == due]
        self._later = [entry for entry in self._later if entry[0] != due]
        for work in ready:
            work()
        return False


def http2_server(react: React, tls: ssl.SSLContext) -> RawServer:
    """A server that calls ``react`` at every event of every connection."""
    tls.set_alpn_protocols(["h2"])
    return RawServer(lambda sock: Http2Peer(sock, react).run(), tls)
