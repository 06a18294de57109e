"""The upstream of every contestant: a process of its own that answers with ready-made events.

    python -m bench.server <folder>      writes ca.pem there; prints its ports as JSON

Chat completions and Anthropic's messages, over HTTP/1.1 and, in TLS, over HTTP/2 too. The model that is asked for says
what comes:

    burst-<events>                       events as fast as they are taken
    paced-<events>[-<ms>]                one event a wake-up, 2 ms apart or as said
    idle-0                               a role, then nothing until the client leaves
    size-<bytes>                         one event of that size
    prelude-<KiB>                        comments of 1 KiB each before the first event
    cut-<number>                         a reset after the role; whole when it is asked for once more

``GET /recoveries`` returns the milliseconds between each reset and the arrival of the request that followed it, and
``GET /waiting`` how many streams have said their role and say nothing more.
Events are framed beforehand and flow control is followed, so that this process costs little beside a contestant.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import h2.config
import h2.connection
import h2.events
import trustme
import uvloop

EVENT_BYTES = 310
BLOCK = 50
"""Events of a burst's block: a TLS record's worth, and less than any window of HTTP/2."""
MODEL = re.compile(rb'"model":\s*"([a-z]+)-(\d+)(?:-(\d+))?"')


def chat_event(delta: str, finish: str = "null", padding: int = 0) -> bytes:
    """An event as OpenAI writes it, its obfuscation included."""
    return (
        'data: {"id":"chatcmpl-0123456789abcdefghijklmnopqrs","object":"chat.completion.chunk","created":1700000000,'
        '"model":"bench","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
        f'"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null,'
        f'"obfuscation":"{"o" * padding}"}}\n\n'
    ).encode()


def message_event(name: str, rest: str, padding: int = 0) -> bytes:
    """An event as Anthropic writes it, padded to the size of the other dialect's."""
    more = f',"padding":"{"o" * padding}"' if padding else ""
    return f'event: {name}\ndata: {{"type":"{name}",{rest}{more}}}\n\n'.encode()


class Events(NamedTuple):
    """The events of one dialect."""

    start: bytes
    token: Callable[[int, str], bytes]
    end: bytes


def chat_token(size: int, text: str) -> bytes:
    event = chat_event(f'{{"content":"{text}"}}')
    return chat_event(f'{{"content":"{text}"}}', padding=max(0, size - len(event)))


def message_token(size: int, text: str) -> bytes:
    rest = f'"index":0,"delta":{{"type":"text_delta","text":"{text}"}}'
    plain = message_event("content_block_delta", rest, padding=1)
    return message_event("content_block_delta", rest, padding=max(1, size - len(plain) + 1))


CHAT = Events(
    chat_event('{"role":"assistant","content":""}'),
    chat_token,
    chat_event("{}", '"stop"') + b"data: [DONE]\n\n",
)
MESSAGES = Events(
    message_event(
        "message_start",
        '"message":{"id":"msg_bench","type":"message","role":"assistant","content":[],"model":"bench",'
        '"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}',
    )
    + message_event("content_block_start", '"index":0,"content_block":{"type":"text","text":""}'),
    message_token,
    message_event("content_block_stop", '"index":0')
    + message_event(
        "message_delta", '"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":1}'
    )
    + message_event("message_stop", '"padding":""'),
)


@functools.cache
def tokens_of(events: Events) -> list[bytes]:
    """A burst's block of events. Each has a text of its own: litellm ends a stream that says the same over and over."""
    return [events.token(EVENT_BYTES, f" word{number:02}") for number in range(BLOCK)]


class Seen:
    """What the server has seen.

    Attributes:
        cut_at: when streams were cut.
        recoveries: milliseconds that the next request for each took to arrive.
        waiting: how many idle streams are open.
    """

    cut_at: ClassVar[dict[int, float]] = {}
    recoveries: ClassVar[list[float]] = []
    waiting: ClassVar[int] = 0


class Connection(asyncio.Protocol):
    """What both versions of HTTP share: writing with back-pressure, and the answers."""

    transport: asyncio.Transport
    head: bytes
    end: bytes
    blocks = 1
    """How many blocks a burst writes at once."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.playing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        if self.playing:
            self.playing.cancel()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def framed(self, data: bytes) -> bytes:
        """Return a piece of the body as it goes over the wire."""
        raise NotImplementedError

    async def ready(self, size: int) -> None:  # noqa: ARG002 - HTTP/2 needs it
        """Wait until the client takes this many bytes of the body."""
        await self.room.wait()

    def request(self, path: bytes, body: bytes) -> None:
        """Answer a request."""
        self.playing = asyncio.ensure_future(self.answer(path, body))

    async def answer(self, path: bytes, body: bytes) -> None:
        events = MESSAGES if path.endswith(b"/messages") else CHAT
        asked = MODEL.search(body)
        assert asked, body[:200]
        mode, count, extra = asked[1], int(asked[2]), asked[3]
        if mode == b"cut":
            if (cut_at := Seen.cut_at.pop(count, None)) is None:
                await self.cut(events, count)
                return
            Seen.recoveries.append((time.monotonic() - cut_at) * 1e3)
        await self.play(events, mode, count, int(extra or 2) / 1e3)

    async def play(self, events: Events, mode: bytes, count: int, pause: float) -> None:
        await self.give(self.head + self.framed(events.start), len(events.start))
        tokens = tokens_of(events)
        if mode == b"burst":
            await self.burst(tokens, count)
        elif mode == b"paced":
            frames = list(map(self.framed, tokens))
            for number in range(count):
                await self.give(frames[number % BLOCK], EVENT_BYTES)
                await asyncio.sleep(pause)
        elif mode == b"idle":
            Seen.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                Seen.waiting -= 1
        elif mode == b"size":
            await self.burst(tokens, 1)
            event = events.token(count, "x" * (count - EVENT_BYTES))
            for at in range(0, len(event), 16000):
                await self.give(self.framed(piece := event[at : at + 16000]), len(piece))
        elif mode == b"prelude":
            await self.burst([b": " + b"k" * 1020 + b"\n\n"] * 10, count)
            await self.burst(tokens, 1)
        await self.give(self.framed(events.end) + self.end, len(events.end))

    async def burst(self, block: list[bytes], count: int) -> None:
        block = block * self.blocks
        whole = b"".join(map(self.framed, block))
        for _ in range(count // len(block)):
            await self.give(whole, sum(map(len, block)))
        if rest := block[: count % len(block)]:
            await self.give(b"".join(map(self.framed, rest)), sum(map(len, rest)))

    async def give(self, framed: bytes, size: int) -> None:
        """Write framed bytes with this many bytes of the body in them, once the client takes them."""
        await self.ready(size)
        self.transport.write(framed)

    async def cut(self, events: Events, number: int) -> None:
        await self.give(self.head + self.framed(events.start), len(events.start))
        await asyncio.sleep(0.05)
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        Seen.cut_at[number] = time.monotonic()
        self.transport.abort()


class Http1(Connection):
    """A connection of HTTP/1.1, kept alive."""

    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    end = b"0\r\n\r\n"
    blocks = 8  # more than a contestant reads at once: what it finds is not what this process has just managed to write

    def __init__(self) -> None:
        super().__init__()
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if len(body) < (int(length[1]) if length else 0):
            return
        self.buffer = b""
        path = head.split(b" ", 2)[1]
        if path in (b"/recoveries", b"/waiting"):
            told = json.dumps(Seen.recoveries if path == b"/recoveries" else Seen.waiting).encode()
            Seen.recoveries.clear()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))
        elif head.startswith(b"POST "):
            self.request(path, body)
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)


class Http2(Connection):
    """A connection of HTTP/2 with one stream at a time. h2 reads it; DATA frames are written beside it, ready-made."""

    head = b""
    end = b""

    def __init__(self) -> None:
        super().__init__()
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.stream = 0
        self.path = self.body = b""
        self.window = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.http.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.stream, self.body = event.stream_id, b""
                self.path = dict(event.headers)[b":path"]
            elif isinstance(event, h2.events.DataReceived):
                self.body += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.http.send_headers(self.stream, [(":status", "200"), ("content-type", "text/event-stream")])
                self.flush()
                self.request(self.path, self.body)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                if self.playing:
                    self.playing.cancel()
            elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
                self.window.set()
        self.flush()

    def framed(self, data: bytes) -> bytes:
        """Return a DATA frame (RFC 9113, section 6.1)."""
        return struct.pack(">I", len(data))[1:] + b"\0\0" + struct.pack(">I", self.stream) + data

    async def ready(self, size: int) -> None:
        await self.room.wait()
        while self.http.local_flow_control_window(self.stream) < size:
            self.window.clear()
            await self.window.wait()
        self.http.outbound_flow_control_window -= size
        self.http.streams[self.stream].outbound_flow_control_window -= size

    async def answer(self, path: bytes, body: bytes) -> None:
        await super().answer(path, body)
        if not self.transport.is_closing():
            self.http.end_stream(self.stream)
            self.flush()


class Negotiated(asyncio.Protocol):
    """A TLS connection whose version of HTTP is what ALPN said."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        chosen = Http2() if tls.selected_alpn_protocol() == "h2" else Http1()
        cast(asyncio.Transport, transport).set_protocol(chosen)
        chosen.connection_made(transport)


async def main(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(Http1, "127.0.0.1", 0, backlog=4096)
    secure = await loop.create_server(Negotiated, "127.0.0.1", 0, backlog=4096, ssl=context)
    ports = {name: server.sockets[0].getsockname()[1] for name, server in (("http", plain), ("https", secure))}
    print(json.dumps(ports), flush=True)
    await plain.serve_forever()


if __name__ == "__main__":
    from bench.measure import open_files

    open_files()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(Path(sys.argv[1])))
