"""Asking over bare sockets in asyncio, many at once, and leaving where it pleases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.kept.clients import BODY, KEY


@dataclass
class Came:
    """What has come of a response.

    Attributes:
        status: its status, 0 before its head has come.
        turn: the id of the turn.
        body: its body, free of its framing.
        ended: whether the body has come to its end, as its framing says.
    """

    status: int = 0
    turn: str = ""
    body: bytes = b""
    ended: bool = False
    _length: int | None = field(default=None, repr=False)
    _rest: bytes = field(default=b"", repr=False)

    def head(self, data: bytes) -> None:
        """Take the head."""
        line, *lines = data.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1])
        fields = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        self.turn = fields.get("x-unbroken-turn", "")
        if fields.get("transfer-encoding") != "chunked":
            self._length = int(fields.get("content-length", "0"))
            self.ended = not self._length

    def feed(self, data: bytes) -> None:
        """Take bytes of the body as they come; what is not a whole chunk is not counted."""
        if self._length is not None:
            self.body += data
            self.ended = len(self.body) >= self._length
            return
        self._rest += data
        while b"\r\n" in self._rest and not self.ended:
            line, _, rest = self._rest.partition(b"\r\n")
            size = int(line, 16)
            if len(rest) < size + 2:
                return
            self.body, self._rest, self.ended = self.body + rest[:size], rest[size + 2 :], not size


async def ask(
    port: int,
    method: str,
    target: str,
    fields: Mapping[str, str],
    leave_after: int | None = None,
    *,
    key: str = KEY,
    body: Any = BODY,
    on_data: Callable[[Came], None] = lambda _: None,
) -> Came:
    """Ask, and leave once so many bytes of the body have come.

    Args:
        port: of the relay.
        method: of the request.
        target: its path and query.
        fields: further fields of its head.
        leave_after: bytes; ``None``: stay to the end.
        key: the client's.
        body: what a POST sends.
        on_data: called with what has come so far, once the head has come and whenever there is more.

    Raises:
        OSError: the relay cannot be reached, or has reset the connection before the head.
        EOFError: the connection was closed before the head.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode() if method == "POST" else b""
    given = {"host": "127.0.0.1", "authorization": f"Bearer {key}", "content-type": "application/json", **fields}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    writer.write(f"{method} {target} HTTP/1.1\r\n{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    came = Came()
    try:
        came.head(await reader.readuntil(b"\r\n\r\n"))
        on_data(came)
        while not came.ended and (leave_after is None or len(came.body) < leave_after):
            try:
                data = await reader.read(4096)
            except OSError:
                break
            if not data:
                break
            came.feed(data)
            on_data(came)
    finally:
        writer.transport.abort()
    return came
