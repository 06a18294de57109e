"""The far end of an idle test: a server that is silent, or sends comments, for as long as a request says.

``GET /silence?seconds=S&comments=C&token=T`` (any path that ends so) is answered at once with the head of an event
stream, which repeats the token, and a comment, without which some servers before it would keep the head; then nothing
comes, or a comment every C seconds; after S seconds the stream ends. It keeps nothing of what it is sent, and limits
all that a client may ask for.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from unbroken.lab.raw_stream import RawStream
from unbroken.lab.service import Service
from unbroken.lab.tls import TlsRawStream

TOKEN_HEADER = "x-unbroken-echo"
"""The header of the response that repeats the request's token."""

COMMENT, END = b": silence\n\n", b"data: [DONE]\n\n"

LONGEST = 3600.0
"""Seconds for which it is silent at most, and for which a client that asks for nothing may stay."""

MAX_CONNECTIONS = 256
"""How many connections may be open at once."""

_TOKEN = re.compile(r"[\w-]{0,64}", re.ASCII)


class SilenceRequest(NamedTuple):
    """What a request asks for.

    Attributes:
        seconds: how long the stream lasts.
        comments: seconds between two comments, 0 for none.
        token: what is repeated.
    """

    seconds: float
    comments: float
    token: str


def read_target(target: str) -> SilenceRequest | None:
    """Read the target of a request; ``None`` if it asks for something else, or for what it cannot have."""
    parts = urlsplit(target)
    if not parts.path.endswith("/silence"):
        return None
    try:
        given = {name: values[0] for name, values in parse_qs(parts.query, max_num_fields=10).items()}
        seconds, comments = float(given.get("seconds", 60)), float(given.get("comments", 0))
    except ValueError:
        return None
    token = given.get("token", "")
    valid = 0 <= seconds <= LONGEST and (comments == 0 or 0.1 <= comments <= LONGEST) and _TOKEN.fullmatch(token)
    return SilenceRequest(seconds, comments, token) if valid else None


class EchoServer(Service):
    """A server of silence, over HTTP/1.1 and (with TLS) HTTP/2.

    Args:
        ssl_context: the server's side of TLS; None: plain TCP, and HTTP/1.1 alone.
        host: the address to bind.
        port: the port to bind; 0: a free one.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self._ssl_context = ssl_context

    @property
    def url(self) -> str:
        """The URL for ``unbroken doctor --echo``."""
        return f"{'https' if self._ssl_context else 'http'}://{self._address}"

    async def _serve(self, sock: socket.socket) -> None:
        stream = TlsRawStream(sock, self._ssl_context) if self._ssl_context else RawStream(sock)
        try:
            if self.open_connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(LONGEST):
                    await self._converse(stream)
            await stream.shut()
            await stream.linger()
        except TimeoutError:
            pass
        finally:
            stream.close()

    async def _converse(self, stream: RawStream) -> None:
        if isinstance(stream, TlsRawStream) and self._ssl_context:
            self._ssl_context.set_alpn_protocols(["h2", "http/1.1"])
            await stream.handshake()
            if stream.alpn == "h2":
                await _Http2Silence(stream).run()
                return
        await _serve_http1(stream)


async def _serve_http1(stream: RawStream) -> None:
    """Answer one request over HTTP/1.1."""
    head = await stream.read_until(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    silence = read_target(words[1]) if len(words) == 3 and words[0] == "GET" else None
    if silence is None:
        await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return
    fields = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    fields += f"{TOKEN_HEADER}: {silence.token}"
    await stream.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + _chunk(COMMENT))
    for comment in _waits(silence):
        await stream.wait_until_left(comment)
        if stream.left.is_set():
            return
        await stream.send(_chunk(COMMENT))
    await stream.send(_chunk(END) + _chunk(b""))


def _waits(silence: SilenceRequest) -> list[float]:
    """Return the waits before each comment; the last one is before the end, which has a comment before it too."""
    if not silence.comments:
        return [silence.seconds]
    whole, rest = divmod(silence.seconds, silence.comments)
    return [silence.comments] * int(whole) + [rest]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Http2Silence:
    """One connection over HTTP/2. Bodies of requests are not taken: the window of HTTP/2 limits them."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._protocol = h2.connection.H2Connection(config)

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        self._protocol.initiate_connection()
        await self._flush()
        async with asyncio.TaskGroup() as tasks:
            try:
                while data := await self._stream.read():
                    for event in self._protocol.receive_data(data):
                        if isinstance(event, h2.events.RequestReceived):
                            tasks.create_task(self._answer(event))
                    await self._flush()
            except (h2.exceptions.ProtocolError, OSError):
                pass
            self._stream.left.set()

    async def _answer(self, event: h2.events.RequestReceived) -> None:
        fields = {str(name): str(value) for name, value in event.headers or ()}
        silence = read_target(fields.get(":path", "")) if fields.get(":method") == "GET" else None
        number = event.stream_id
        assert number is not None
        try:
            if silence is None:
                self._protocol.send_headers(number, [(":status", "404")], end_stream=True)
                await self._flush()
                return
            told = [("content-type", "text/event-stream"), (TOKEN_HEADER, silence.token)]
            self._protocol.send_headers(number, [(":status", "200"), *told])
            self._protocol.send_data(number, COMMENT)
            await self._flush()
            for wait in _waits(silence):
                await self._stream.wait_until_left(wait)
                if self._stream.left.is_set():
                    return
                self._protocol.send_data(number, COMMENT)
                await self._flush()
            self._protocol.send_data(number, END, end_stream=True)
            await self._flush()
        except (h2.exceptions.ProtocolError, OSError):  # the client has reset the stream, or left
            return

    async def _flush(self) -> None:
        if data := self._protocol.data_to_send():
            await self._stream.send(data)
