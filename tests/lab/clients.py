"""Clients that see what is really on the wire."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import h2.config
import h2.connection
import h2.events
import h11

TIMEOUT = 30.0
CHAT = "/v1/chat/completions"
STREAM = json.dumps({"model": "lab", "messages": [], "stream": True}).encode()

E = TypeVar("E", bound=h2.events.Event)


class RawClient:
    """One socket; `tcp` is the TCP below TLS."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, alpn: str = "http/1.1", host: str = "127.0.0.1"):
        self.tcp = socket.create_connection((host, port), timeout=TIMEOUT)
        self.socket: socket.socket = self.tcp
        if tls is not None:
            tls.set_alpn_protocols([alpn])
            self.tcp = socket.socket(fileno=socket.dup(self.socket.fileno()))
            self.tcp.settimeout(TIMEOUT)
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname=host, suppress_ragged_eofs=False)
            except OSError:
                self.tcp.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self.tcp.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, body: bytes = STREAM, path: str = CHAT, headers: Mapping[str, str] | None = None) -> None:
        self.request("POST", path, body, headers)

    def request(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        lines = [f"{method} {target} HTTP/1.1", "host: lab", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, f"closed after {bytes(data)!r}"
            data += piece
        return bytes(data)

    def read_until(self, marker: bytes) -> bytes:
        data = b""
        while not data.endswith(marker):
            data += self.read(1)
        return data

    def read_to_end(self) -> tuple[bytes, OSError | None]:
        """All bytes up to the end, and the error that the end was, if it was one."""
        return _read_to_end(self.socket)

    def read_tcp_to_end(self) -> tuple[bytes, OSError | None]:
        """The same below TLS."""
        return _read_to_end(self.tcp)

    def read_response(self) -> tuple[h11.Response, bytes]:
        """One whole response; h11 raises if its framing is broken."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "lab")]))
        parser.send(h11.EndOfMessage())
        response, body = None, b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self.socket.recv(65_536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                return response, body


def _read_to_end(sock: socket.socket) -> tuple[bytes, OSError | None]:
    data = b""
    try:
        while piece := sock.recv(65_536):
            data += piece
    except TimeoutError:
        raise
    except OSError as error:
        return data, error
    return data, None


def is_reset_at_once(port: int) -> bool:
    """Whether a new connection is."""
    with RawClient(port) as client:
        data, error = client.read_to_end()
    return data == b"" and isinstance(error, ConnectionResetError)


def split_head(response: bytes) -> tuple[bytes, bytes]:
    head, _, rest = response.partition(b"\r\n\r\n")
    return head, rest


def dechunk(data: bytes) -> tuple[bytes, bytes]:
    """The data of all whole chunks, and what is left behind them."""
    body = b""
    while True:
        size_line, separator, rest = data.partition(b"\r\n")
        try:
            size = int(size_line, 16)
        except ValueError:
            return body, data
        if not separator or size == 0 or len(rest) < size + 2:
            return body, data
        body, data = body + rest[:size], rest[size + 2 :]


def events(body: bytes) -> list[Any]:
    """The JSON data of the events of a stream; `[DONE]` stands for itself."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


def text_of(body: bytes) -> str:
    deltas = [e["choices"][0]["delta"] for e in events(body) if e != "[DONE]" and e.get("choices")]
    return "".join(delta.get("content", "") for delta in deltas)


class Http2Client(RawClient):
    """An HTTP/2 connection that collects what the server does."""

    def __init__(self, port: int, tls: ssl.SSLContext):
        super().__init__(port, tls, "h2")
        assert isinstance(self.socket, ssl.SSLSocket)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []
        self.protocol.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.send(self.protocol.data_to_send())

    def post_stream(self, body: bytes = STREAM, path: str = CHAT) -> int:
        stream_id = self.protocol.get_next_available_stream_id()
        headers = [(":method", "POST"), (":path", path), (":scheme", "https"), (":authority", "lab"), ("x-lab", "1")]
        self.protocol.send_headers(stream_id, headers)
        self.protocol.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id

    def pump(self) -> bool:
        """Read once; False at the end of the connection."""
        data = self.socket.recv(65_536)
        for event in self.protocol.receive_data(data) if data else ():
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        if data:
            self.flush()
        return bool(data)

    def wait_for(self, kind: type[E], when: Callable[[E], bool] = lambda event: True) -> E:
        while True:
            for event in self.events:
                if isinstance(event, kind) and when(event):
                    return event
            assert self.pump(), f"closed before {kind}"

    def body(self, stream_id: int) -> bytes:
        data = [e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream_id]
        return b"".join(piece or b"" for piece in data)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
