"""What a connection needs from the upstream that it belongs to."""

from __future__ import annotations

from typing import Protocol

from unbroken.lab.exchange import Exchange
from unbroken.lab.record import RecordedRequest
from unbroken.lab.watch import Watch


class Stage(Protocol):
    """Takes requests and has them answered; `Upstream` is one."""

    @property
    def watch(self) -> Watch:
        """Guards everything that connections note."""

    def record(
        self,
        connection: int,
        http_version: str,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> RecordedRequest:
        """Remember a request that was read whole."""

    def count_ping(self) -> None:
        """Count an HTTP/2 PING of a client."""

    async def answer(self, exchange: Exchange) -> None:
        """Perform the response to the exchange's request, or what its fault makes of it."""
