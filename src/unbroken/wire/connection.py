"""One connection without I/O: proxy, TLS, HTTP. A loop hands it what comes and sends what is to be sent.

TLS, HTTP/2 and SOCKS are imported by the first connection that needs them: their libraries are a good part of what a
short program costs.

Establishing is one generator, which a loop drives without knowing of it: :meth:`Connection.receive` and
:meth:`Connection.data_to_send` are all that there is, and once :attr:`Connection.http` is there, the way stands.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeAlias

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire import handshakes
from unbroken.wire.http1 import Http1
from unbroken.wire.requests import Destination

if TYPE_CHECKING:
    import ssl

    from unbroken.wire.http2 import Http2
    from unbroken.wire.tls import Tls

    Http: TypeAlias = Http1 | Http2


SAMPLE = 16
"""How many of the first bytes are kept, to recognise a protocol."""


class Step(enum.Enum):
    """The steps of a connection through a proxy, in order."""

    DIAL = "connecting to the proxy"
    PROXY_TLS = "TLS with the proxy"
    HANDSHAKE = "asking the proxy for a tunnel"
    SERVER_TLS = "TLS with the server, through the tunnel"
    OPEN = "the request"


class Connection:
    """One connection.

    Args:
        destination: where it leads.
        context: returns the context for TLS.
        http2: whether to offer HTTP/2, without which there is no PING.

    Attributes:
        destination: where it leads.
        http: the HTTP of the server, once the way to it stands.
        received: bytes that have come, as HTTP sees them.
        step: how far it has come through a proxy.
        sample: the first bytes that came in this step.
    """

    def __init__(self, destination: Destination, context: Callable[[], ssl.SSLContext], *, http2: bool) -> None:
        self.destination = destination
        self.http: Http | None = None
        self.received = 0
        self.step = Step.HANDSHAKE
        self.sample = b""
        self._context = context
        self._protocols = ["h2", "http/1.1"] if http2 else ["http/1.1"]
        self._layers: list[Tls] = []
        self._buffer = handshakes.Buffer()
        self._establishing = self._establish()
        self._advance()

    def receive(self, data: bytes) -> None:
        """Take bytes from the network.

        Raises:
            WireError: they are a failure; what came before it can still be taken.
            ssl.SSLError: as above.
            h2.exceptions.ProtocolError: as above.
        """
        for plain in self._decrypted(data, 0) if self._layers else (data,):
            if len(self.sample) < SAMPLE:
                self.sample += plain[:SAMPLE]
            self.received += len(plain)
            if self.http:
                self.http.receive(plain)
            else:
                self._buffer.incoming += plain
                self._advance()
        for layer in self._layers:
            if layer.ended:
                self._receive_end_of_tls()
                break

    def receive_eof(self) -> None:
        """Take the end of the connection.

        Raises:
            WireError: it is a failure.
            ssl.SSLError: it came during a handshake.
        """
        if self.http and self.http.ended:
            return
        if self._layers:
            self._layers[-1].receive_eof()
        if self.http is None:
            raise WireError(Failure.CLOSED)
        self.http.receive_eof()

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER, once the way to it stands; ``None`` without TLS."""
        return self._layers[-1].certificate if self.destination.scheme == "https" and self.http else None

    @property
    def listens_only(self) -> bool:
        """Whether there is nothing to send, whatever comes: HTTP/1.1 without TLS, and the request has been sent."""
        return not self._layers and isinstance(self.http, Http1) and self.http.is_sent

    def data_to_send(self) -> bytes | memoryview:
        """Return the next bytes for the network, or ``b""``."""
        data = self._buffer.taken() if self._buffer.outgoing or self.http is None else self.http.data_to_send()
        for layer in reversed(self._layers):
            data = layer.encrypt(data)
        return data

    def _decrypted(self, data: bytes, depth: int) -> Iterator[bytes]:
        layer = self._layers[depth]
        layer.receive(data)
        if not layer.established and len(self.sample) < SAMPLE:
            self.sample += data[:SAMPLE]
        if not layer.established:
            self._advance()
        if layer.established:
            for plain in layer.decrypted():
                if depth + 1 == len(self._layers):
                    yield plain
                else:
                    yield from self._decrypted(plain, depth + 1)

    def _receive_end_of_tls(self) -> None:
        if self.http is None:
            raise WireError(Failure.CLOSED)
        if self._layers[-1].ended:
            self.http.receive_eof()
        else:
            self.receive_eof()  # only the proxy's TLS has ended

    def _advance(self) -> None:
        """Go on with establishing the connection, as far as the bytes that have come allow."""
        try:
            next(self._establishing)
        except StopIteration as done:
            self.http = done.value
            self.step, self.sample = Step.OPEN, bytes(self._buffer.incoming[:SAMPLE])
            if rest := bytes(self._buffer.incoming):
                self._buffer.incoming.clear()
                self.http.receive(rest)

    def _establish(self) -> Generator[None, None, Http]:
        """Establish the connection; each ``yield`` waits for more bytes."""
        scheme, host, _, proxy = self.destination
        if proxy and proxy.scheme == "https":
            yield from self._start_tls(proxy.host, ["http/1.1"], Step.PROXY_TLS)
            self.step = Step.HANDSHAKE
        if proxy and proxy.scheme.startswith("socks5"):
            from unbroken.wire.socks import socks5

            yield from socks5(self._buffer, self.destination, proxy)
        elif proxy and not self.destination.forwards:
            yield from handshakes.connect(self._buffer, self.destination, proxy)
        if scheme == "https":
            tls = yield from self._start_tls(host, self._protocols, Step.SERVER_TLS)
            if tls.protocol == "h2":
                from unbroken.wire.http2 import Http2

                return Http2()
        return Http1()

    def _start_tls(self, host: str, protocols: list[str], step: Step) -> Generator[None, None, Tls]:
        from unbroken.wire.tls import Tls

        self.step, self.sample = step, bytes(self._buffer.incoming[:SAMPLE])
        tls = Tls(self._context(), host, protocols)
        tls.receive(bytes(self._buffer.incoming))
        self._buffer.incoming.clear()
        self._layers.append(tls)
        while not tls.handshake():
            yield
        return tls
