"""What a client of a proxy asks for, in any protocol."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from unbroken.lab.raw_stream import RawStream
from unbroken.lab.tunnel import TunnelKind

Credentials = tuple[str, str]
"""User name and password."""


class ProxyRefusal(Enum):
    """The reason why a client does not get its tunnel."""

    FORBIDDEN = auto()
    UNREACHABLE = auto()
    ON_PURPOSE = auto()


class Negotiation(Protocol):
    """A client that has asked for a tunnel and waits for the answer."""

    @property
    def kind(self) -> TunnelKind:
        """How it asked."""

    @property
    def target(self) -> tuple[str, int]:
        """The host and the port that it asked for."""

    @property
    def head(self) -> bytes:
        """Bytes to send to the target before those that the client sends now."""

    async def grant(self) -> None:
        """Report to the client that the target is connected."""

    async def refuse(self, refusal: ProxyRefusal, /) -> None:
        """Report to the client that there is no tunnel, and why."""


class FixedTarget:
    """The case without negotiation: every client is connected to the same target."""

    kind: TunnelKind = "fixed"
    head = b""

    def __init__(self, client: RawStream, target: tuple[str, int]) -> None:
        self.target = target
        self._client = client

    async def grant(self) -> None:
        """Send nothing: the client takes the proxy for the target."""

    async def refuse(self, _: ProxyRefusal, /) -> None:
        """Reset the client: there is no protocol in which to refuse."""
        await self._client.wait_until_heard()
        self._client.reset()
