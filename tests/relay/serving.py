"""A relay served as in earnest, and clients that speak to it over bare sockets.

What is sent to a relay, and what it says, is here a matter of bytes: a client library would mend both.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from cli.programs import Program
from unbroken.lab.condition import Condition
from unbroken.relay.app import Relay
from unbroken.relay.server import listen, make_server, origin_of
from unbroken.relay.settings import Settings, UpstreamSettings
from unbroken.relay.telemetry import AccessLog
from waiting import PATIENCE, poll
from wire.servers import RawServer, Script

__all__ = ["PATIENCE", "poll"]

T = TypeVar("T")
Fields = Sequence[tuple[str, str]]


class Served:
    """A relay in the server that ``unbroken relay`` runs, on a thread of this process.

    Args:
        settings: the relay's.
        host: the address to listen on.

    Attributes:
        relay: the application.
        port: where it listens.
        origin: the same as a URL.
        entries: what its access log says, a request each, in the order in which they ended.
    """

    def __init__(self, settings: Settings, host: str = "127.0.0.1") -> None:
        self.settings = settings
        self.entries: list[dict[str, Any]] = []
        self.relay = Relay(settings, version="test", log=AccessLog(self._note, as_json=True))
        self.relay.lifespan = self._alive
        self._server = make_server(self.relay, settings)
        sock = listen(host, 0)
        self.port: int = sock.getsockname()[1]
        self.origin = origin_of(sock)
        self._watch = Condition()
        self._lives = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="relay", daemon=True)
        self._thread.start()
        assert self._lives.wait(PATIENCE), "the relay did not start"

    def close(self) -> None:
        """Stop it, as a signal would, and wait for its end. May be called again."""
        self.stop()
        self.join()

    def stop(self) -> None:
        """Tell it to stop."""
        self._server.should_exit = True

    def join(self) -> float:
        """Wait until it has ended; return when that was."""
        self._thread.join(PATIENCE + self.settings.grace)
        assert not self._thread.is_alive(), "the relay did not end"
        return time.monotonic()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the relay's event loop."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(PATIENCE)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.server_state.connections)

    def tasks(self) -> int:
        """How many tasks its event loop has."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return self.run(count)

    def entry(self, number: int = -1) -> dict[str, Any]:
        """An entry of the access log, which is waited for: it is written when the request has ended."""
        wanted = number + 1 if number >= 0 else max(1, -number)
        assert self._watch.wait_for(lambda: len(self.entries) >= wanted, PATIENCE), f"no entry, but {self.entries}"
        return self.entries[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _note(self, line: str) -> None:
        with self._watch.change():
            self.entries.append(json.loads(line))

    @asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._lives.set()
        yield


def settings_to(to: str | Mapping[str, str | UpstreamSettings], **more: Any) -> Settings:
    """Settings of a relay that reads no environment.

    Args:
        to: the base URL of the one upstream, which is called ``lab``; or upstreams by name, as base URLs or whole. If
            there is one only, it is the default one.
        more: further settings.
    """
    given = {"lab": to} if isinstance(to, str) else to
    upstreams = {name: UpstreamSettings(name, url) if isinstance(url, str) else url for name, url in given.items()}
    default = next(iter(upstreams)) if len(upstreams) == 1 else ""
    return Settings(upstreams=upstreams, **{"default": default, "proxy": "", "grace": 5.0, **more})


@dataclass
class Received:
    """A response as it came.

    Attributes:
        status: its status.
        reason: what stands behind it.
        headers: names in lower case, in order.
        body: free of its framing.
        whole: whether the body has come to its end, as its framing says.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for field, value in self.headers if field == name]

    def value(self, name: str) -> str | None:
        """The only value of a field, ``None`` where there is none."""
        values = self.values(name)
        assert len(values) < 2, f"{name} is there twice: {values}"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error of the relay's own, in OpenAI's words."""
        return self.json["error"]["code"]


@dataclass
class Caller:
    """A client on a bare socket.

    Args:
        port: whom to connect to.
        host: the same.
        small: whether its receive buffer is as small as can be, so that it is soon full.
    """

    port: int
    host: str = "127.0.0.1"
    small: bool = False
    sock: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        if self.small:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((self.host, self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, politely. May be called again."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def begin(
        self, method: str, target: str, headers: Fields = (), body: bytes = b"", *, host: str | None = "127.0.0.1"
    ) -> None:
        """Send a request; a length is added where there is a body and no framing is given."""
        self.send(request(method, target, headers, body, host=host))

    def ask(
        self, method: str, target: str, headers: Fields = (), body: bytes = b"", *, host: str | None = "127.0.0.1"
    ) -> Received:
        """Send a request and read the whole response."""
        self.begin(method, target, headers, body, host=host)
        return self.answer(method)

    def ask_json(self, target: str, value: Any, headers: Fields = ()) -> Received:
        """Send a JSON document by POST and read the whole response."""
        return self.ask("POST", target, [("content-type", "application/json"), *headers], json.dumps(value).encode())

    def answer(self, method: str = "GET") -> Received:
        """Read a whole response; one that is cut off is returned as far as it came, and is not ``whole``."""
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304):
            answer.whole = True
        elif answer.value("transfer-encoding") == "chunked":
            self._read_chunks(answer)
        elif (length := answer.value("content-length")) is not None:
            answer.body = self.take(int(length))
            answer.whole = len(answer.body) == int(length)
        else:
            answer.body = self.rest()
            answer.whole = True
        return answer

    def head(self) -> Received:
        """Read the next head; what follows it stays to be read."""
        while b"\r\n\r\n" not in self._rest:
            assert self._receive(), f"the connection ended after {self._rest!r}"
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [tuple(text.split(": ", 1)) for text in lines]
        return Received(int(status), reason, [(name.lower(), value) for name, value in fields])

    def take(self, count: int) -> bytes:
        """Read so many bytes, or fewer where the connection ends before."""
        while len(self._rest) < count and self._receive():
            pass
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def pieces(self, count: int) -> Iterator[bytes]:
        """Read so many bytes as they come."""
        piece, self._rest = self._rest, b""
        while count:
            assert len(piece) <= count
            yield piece
            count -= len(piece)
            piece = self.sock.recv(min(count, 1024 * 1024)) if count else b""
            assert piece or not count, f"the connection ended {count} bytes too early"

    def until(self, marker: bytes) -> bytes:
        """Read up to and with ``marker``."""
        while marker not in self._rest:
            assert self._receive(), f"{marker!r} never came, but {self._rest!r}"
        index = self._rest.index(marker) + len(marker)
        taken, self._rest = self._rest[:index], self._rest[index:]
        return taken

    def rest(self) -> bytes:
        """Read until the connection ends, by whatever means."""
        while self._receive():
            pass
        taken, self._rest = self._rest, b""
        return taken

    def ended(self) -> bool:
        """Wait for the end of the connection; whether nothing came before it."""
        return self.rest() == b""

    def _read_chunks(self, answer: Received) -> None:
        while line := self._line():
            size = int(line, 16)
            answer.body += self.take(size)
            if not size:
                answer.whole = self.take(2) == b"\r\n"
                return
            self.take(2)

    def _line(self) -> bytes:
        """A line without its end; ``b""`` where the connection ends in it."""
        while b"\r\n" not in self._rest:
            if not self._receive():
                return b""
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _receive(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)


class RelayProgram(Program):
    """``unbroken relay`` as a program of its own."""

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid


def request(
    method: str, target: str, headers: Fields = (), body: bytes = b"", *, host: str | None = "127.0.0.1"
) -> bytes:
    """The bytes of a request."""
    names = {name.lower() for name, _ in headers}
    fields = [*([("host", host)] if host is not None and "host" not in names else []), *headers]
    if body and not names & {"content-length", "transfer-encoding"}:
        fields.append(("content-length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


# What the fixtures hand out; see conftest.

Serve = Callable[..., Served]
Call = Callable[..., Caller]
RunRelay = Callable[..., tuple[RelayProgram, int]]
ServeRaw = Callable[[Script], RawServer]
