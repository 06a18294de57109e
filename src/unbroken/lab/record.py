"""The upstream's record of a request."""

from __future__ import annotations

from dataclasses import dataclass, field

from unbroken.lab.fault import Fault


@dataclass(slots=True, eq=False)
class RecordedRequest:
    """One request that was read whole, and the outcome of its response. Times are `time.monotonic()` seconds.

    In the end exactly one of `done` and `gone` is true, unless the upstream is closed before.

    Attributes:
        number: 1 for the upstream's first request, and so on.
        connection: 1 for the upstream's first connection, and so on.
        http_version: "1.0", "1.1" or "2".
        method: the method.
        target: the path with its query, as it was sent.
        headers: names in lower case and values, in order; over HTTP/2 ``:authority`` is recorded as ``host``.
        body: the body, without its framing.
        received_at: when the request had been read whole.
        fault: the fault that this request got.
        head_sent_at: when the response headers were sent; None: not yet.
        done_at: when the upstream had finished with it, by a whole answer or by its fault; None: not yet.
        gone_at: when the client closed or reset the connection or the stream before that; None: it has not.
    """

    number: int
    connection: int
    http_version: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    received_at: float
    fault: Fault | None = None
    head_sent_at: float | None = None
    done_at: float | None = None
    gone_at: float | None = None
    _sent: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def path(self) -> str:
        """The target without its query, in which there may be a key."""
        return self.target.partition("?")[0]

    @property
    def asks_for_websocket(self) -> bool:
        """Whether it asks for a WebSocket in the place of HTTP (RFC 6455, section 4.1)."""
        return "websocket" in (self.header("upgrade") or "").lower()

    @property
    def sent(self) -> bytes:
        """The bytes of the response body that were sent, without their framing."""
        return bytes(self._sent)

    @property
    def head_sent(self) -> bool:
        """Whether the response headers were sent."""
        return self.head_sent_at is not None

    @property
    def done(self) -> bool:
        """Whether the upstream has finished with it: it has sent a whole answer, or done what the fault says."""
        return self.done_at is not None

    @property
    def gone(self) -> bool:
        """Whether the client left before that."""
        return self.gone_at is not None

    def header(self, name: str) -> str | None:
        """Return the first value of the header `name`, in any case; None if it is missing."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def add_sent(self, data: bytes) -> None:
        """Record bytes of the body that are being sent."""
        self._sent += data
