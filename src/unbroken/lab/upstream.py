"""The scripted LLM server."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Sequence
from typing import Literal

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.background import Background, purpose_of
from unbroken.lab.continuing import Continuation
from unbroken.lab.fault import Fault
from unbroken.lab.fault_queue import survives
from unbroken.lab.http1 import Http1Connection
from unbroken.lab.http2 import Http2Connection
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.service import Service
from unbroken.lab.state import ServerState
from unbroken.lab.tls import TlsRawStream


class Upstream(Service):
    """A server that speaks every dialect and breaks on script.

    A ``POST`` to ``.../chat/completions``, ``.../completions``, ``.../responses``, ``.../messages`` or
    ``.../models/NAME:generateContent`` (``:streamGenerateContent``) is answered in that dialect, with a stream or with
    one object, as the request asks; ``GET .../models`` with a list; everything else with an error 404.

    Every request takes the next fault, on any path, if `faults_for` does not say otherwise. A fault at ``connect`` or
    ``handshake`` is for the next connection that is accepted; requests on connections that are already open skip it.

    Over HTTP/1.1 a client that closes its sending side counts as gone.

    Args:
        faults: the faults of the first request, the second, and so on; None, and after the last: no fault.
        answer: the answer when nothing goes wrong.
        continuation: how the server continues a text that a request begins for it; None: every answer begins anew.
        background: how responses are kept, and resumed, that are asked for with ``background``; None: the field is
            ignored.
        ssl_context: the server's side of TLS; None: plain TCP. Its list of ALPN protocols is set here.
        http2: whether HTTP/2 is offered (over TLS only).
        faults_for: which requests take a fault: all, or only generation calls of a dialect.
        host: the address to bind.
        port: the port to bind; 0: a free one.

    Raises:
        ValueError: a fault is at ``handshake``, but there is no TLS.
    """

    def __init__(
        self,
        *,
        faults: Sequence[Fault | None] = (),
        answer: ScriptedAnswer | None = None,
        continuation: Continuation | None = None,
        background: Background | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http2: bool = True,
        faults_for: Literal["requests", "generations"] = "requests",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        if ssl_context is None and any(fault is not None and fault.at == "handshake" for fault in faults):
            raise ValueError("a fault at handshake needs an ssl_context")
        self._connection_numbers = itertools.count(1)
        self._state = ServerState(
            self._condition,
            answer or ScriptedAnswer(),
            faults,
            continuation,
            background,
            generations_only=faults_for == "generations",
        )
        self._ssl_context = ssl_context
        self._protocols = ["h2", "http/1.1"] if http2 else ["http/1.1"]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._ssl_context else 'http'}://{self._address}"

    @property
    def url(self) -> str:
        """The base URL for an SDK."""
        return f"{self.origin}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request that was read whole, in order."""
        return self._state.requests

    def requests_for(self, purpose: str) -> list[RecordedRequest]:
        """Return the requests for a purpose, in order: ``"generation"``, ``"resume"``, ``"cancel"`` or ``"delete"``."""
        return [request for request in self.requests if purpose_of(request) == purpose]

    @property
    def pings(self) -> int:
        """How many HTTP/2 PINGs clients have sent."""
        return self._state.pings

    async def _serve(self, sock: socket.socket) -> None:
        number = next(self._connection_numbers)
        fault = self._state.faults.take_for_connection()
        stream = TlsRawStream(sock, self._ssl_context) if self._ssl_context else RawStream(sock)
        try:
            if await survives(stream, fault, "connect"):
                await self._converse(stream, fault, number)
            await stream.linger()
        finally:
            stream.close()

    async def _converse(self, stream: RawStream, fault: Fault | None, number: int) -> None:
        """Perform the TLS handshake, if this is TLS, and serve the connection in the protocol that was chosen."""
        protocol = None
        if isinstance(stream, TlsRawStream) and self._ssl_context:
            await stream.client_hello()
            if not await survives(stream, fault, "handshake"):
                return
            # Only now, because one context may serve several upstreams.
            self._ssl_context.set_alpn_protocols(self._protocols)
            await stream.handshake()
            protocol = stream.alpn
        connection = Http2Connection if protocol == "h2" else Http1Connection
        await connection(stream, self._state, number).run()
