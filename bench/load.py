"""A raw client that asks the relays: sockets and bytes, so that it costs little beside them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple, cast

import uvloop

KEY = "sk-bench-5f0c1a7e9b3d48628e70d1c2b3a49586"
"""A key of nobody's: the LiteLLM proxy does not start without one."""
LAST = b"\r\n0\r\n\r\n"
"""The end of a chunked body (RFC 9112, section 7.1)."""


class Turn(NamedTuple):
    """A turn that was whole.

    Attributes:
        first: seconds from the request to the first byte of the body.
        reads: how often data came; as many as there were events, if each came by itself.
    """

    first: float
    reads: int


class Connection(asyncio.Protocol):
    """One connection, on which one turn after the other is asked for."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.done: asyncio.Future[Turn] | None = None
        self.started = asyncio.Event()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, model: str, fields: bytes = b"") -> None:
        """Send a request, with further fields in its head."""
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
        self.done = asyncio.get_running_loop().create_future()
        self.first = 0.0
        self.reads = 0
        self.head, self.tail = b"", b""
        self.began = time.perf_counter()
        self.transport.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (KEY.encode(), len(body), fields, body)
        )

    async def turn(self, model: str, fields: bytes = b"") -> Turn:
        """Send a request and wait until its answer is whole."""
        self.send(model, fields)
        assert self.done
        return await self.done

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.received += len(data)
        if not self.first:
            self.head += data
            if not self.head.partition(b"\r\n\r\n")[2]:
                return
            self.first = time.perf_counter() - self.began
            self.started.set()
            if not self.head.startswith(b"HTTP/1.1 200"):
                self.fail(RuntimeError(f"the relay answered {self.head[:300]!r}"))
        self.tail = (self.tail + data)[-len(LAST) :] if len(data) < len(LAST) else data[-len(LAST) :]
        if self.tail == LAST and self.done and not self.done.done():
            self.done.set_result(Turn(self.first, self.reads))

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or RuntimeError("the relay closed a connection before the turn was whole"))

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self.done = None
        self.transport.abort()

    def fail(self, error: Exception) -> None:
        if self.done and not self.done.done():
            self.done.set_exception(error)


async def connect(port: int) -> Connection:
    """Open a connection to a relay."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return protocol


async def turns(port: int, model: str, connections: int, each: int) -> list[Turn]:
    """Ask for turns on some connections at once, one after the other on each."""
    opened = [await connect(port) for _ in range(connections)]

    async def ask(connection: Connection) -> list[Turn]:
        return [await connection.turn(model) for _ in range(each)]

    made = await asyncio.gather(*map(ask, opened))
    for connection in opened:
        connection.close()
    return [turn for several in made for turn in several]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on uvloop."""
    return uvloop.run(main)
