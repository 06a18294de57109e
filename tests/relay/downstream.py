"""A client as the application sees it: ASGI's ``send`` and ``receive``, as strict as uvicorn's, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

from unbroken.relay.client_request import ClientRequest

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "headers": [],
    "http_version": "1.1",
}


@dataclass
class Downstream:
    """One request's client.

    Args:
        clock: of :attr:`sent`.

    Attributes:
        status: of the response, ``None`` before it.
        headers: of the response, names in lower case.
        sent: every piece of the body, and when it was sent.
        whole: whether the body was ended.
        waiting: how many calls of ``send`` wait for the client to read.
        written: how many pieces were written without ``send``.
    """

    clock: Callable[[], float] = lambda: 0.0
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    whole: bool = False
    waiting: int = 0
    written: int = 0
    fails: Exception | None = None
    _reads: anyio.Event | None = None
    _gone: anyio.Event = field(default_factory=anyio.Event)

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.sent)

    @property
    def pieces(self) -> list[bytes]:
        return [piece for _, piece in self.sent]

    def value(self, name: str) -> str | None:
        """The only value of a field, ``None`` where there is none."""
        values = [value for field, value in self.headers if field == name]
        assert len(values) < 2, f"{name} is there twice: {values}"
        return values[0] if values else None

    def stop_reading(self) -> None:
        """From now on nothing can be sent."""
        self._reads = anyio.Event()

    def read_on(self) -> None:
        """Take what waits."""
        assert self._reads
        self._reads.set()
        self._reads = None

    @property
    def ready(self) -> bool:
        """See :class:`unbroken.relay.asgi.Writer`."""
        return self.status is not None and not (self._reads or self.fails or self.whole or self._gone.is_set())

    def write(self, data: bytes) -> None:
        """See :class:`unbroken.relay.asgi.Writer`."""
        assert self.ready, "it would have to wait"
        self.sent.append((self.clock(), data))
        self.written += 1

    @property
    def is_full(self) -> bool:
        """Whether it has stopped reading."""
        return self._reads is not None

    def leave(self) -> None:
        """Go away."""
        self._gone.set()

    def incoming(self) -> ClientRequest:
        """Its request, whose body has been read."""
        return ClientRequest(dict(SCOPE), self.receive, 1.0)

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._reads:
            self.waiting += 1
            try:
                await self._reads.wait()
            finally:
                self.waiting -= 1
        if self.fails:
            raise self.fails
        assert not self.whole, f"after the end: {message}"
        if message["type"] == "http.response.start":
            assert self.status is None, "a response is started once"
            self.status = message["status"]
            self.headers = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
        else:
            assert message["type"] == "http.response.body"
            assert self.status is not None, "the head comes first"
            if message["body"]:
                self.sent.append((self.clock(), message["body"]))
            self.whole = not message["more_body"]
