"""What a client of a proxy wants, in whichever protocol it said so."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from unbroken.lab.raw_stream import RawStream
from unbroken.lab.tunnel import TunnelKind

Credentials = tuple[str, str]
"""User name and password."""


class ProxyRefusal(Enum):
    """Why a client does not get its tunnel."""

    FORBIDDEN = auto()
    UNREACHABLE = auto()
    ON_PURPOSE = auto()


class Negotiation(Protocol):
    """A client that has asked for a tunnel and waits for the answer."""

    @property
    def kind(self) -> TunnelKind:
        """How it has asked."""

    @property
    def target(self) -> tuple[str, int]:
        """The host and the port that it asked for."""

    @property
    def head(self) -> bytes:
        """What the target is to hear before anything that the client sends now."""

    async def grant(self) -> None:
        """Tell the client that the target is connected."""

    async def refuse(self, refusal: ProxyRefusal, /) -> None:
        """Tell the client that there is no tunnel, and why."""


class FixedTarget:
    """No negotiation at all: everyone is connected with the same target."""

    kind: TunnelKind = "fixed"
    head = b""

    def __init__(self, client: RawStream, target: tuple[str, int]) -> None:
        self.target = target
        self._client = client

    async def grant(self) -> None:
        """Nothing is said: the client takes the proxy for the target."""

    async def refuse(self, _: ProxyRefusal, /) -> None:
        """Reset the client, for want of words."""
        await self._client.wait_until_heard()
        self._client.reset()
