"""The proxy that cuts idle connections."""

from __future__ import annotations

import asyncio
import socket
import time

from unbroken.lab import http_proxy, socks5
from unbroken.lab.dial import ForbiddenTargetError, dial
from unbroken.lab.negotiation import Credentials, FixedTarget, Negotiation, ProxyRefusal
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.service import Service
from unbroken.lab.tunnel import How, Tunnel, TunnelRules, TunnelRun

_DEFAULT_REFUSAL = 502


class CuttingProxy(Service):
    """A proxy that does what proxies, load balancers and NAT do to idle connections.

    It speaks HTTP (CONNECT, and requests with an absolute ``http`` URL) and SOCKS5 on one port. A reset of one side is
    passed on to the other side as a reset, a close as a close.

    Args:
        idle: seconds without a byte in either direction after which a connection is cut, on both sides; None: never.
        how: "rst" for a TCP reset, "fin" for a plain close.
        cut_after: bytes of the target after which a connection is cut; None: never.
        cuts: how many connections are cut, those that are due first; None: all.
        auth: user name and password that a client must present (Basic, or SOCKS5's own); None: no authentication.
        refuse: the HTTP status with which every request for a connection is refused (SOCKS5: general failure); None:
            no refusal.
        black_hole_after: seconds after which a connection stays open but carries nothing any more, in either
            direction; None: never. Bytes that arrive still count as activity.
        target: connect every client to this host and port, without a proxy protocol, for programs that support none.
        allow_remote: whether targets off this machine are dialled.
        host: the address to bind.
        port: the port to bind; 0: a free one.

    Attributes:
        tunnels: every connection that was passed on, in order.
        cuts_made: how many of them were cut.
    """

    def __init__(
        self,
        *,
        idle: float | None = None,
        how: How = "rst",
        cut_after: int | None = None,
        cuts: int | None = None,
        auth: Credentials | None = None,
        refuse: int | None = None,
        black_hole_after: float | None = None,
        target: tuple[str, int] | None = None,
        allow_remote: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        self.tunnels: list[Tunnel] = []
        self.cuts_made = 0
        self._rules = TunnelRules(idle, how, black_hole_after, cut_after)
        self._cuts = cuts
        self._auth = auth
        self._refuse = refuse
        self._target = target
        self._allow_remote = allow_remote
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._freezes_coming = False

    def freeze(self, *, coming: bool = True) -> None:
        """Carry nothing any more, as in an outage: connections stay open, and what is sent waits for :meth:`thaw`.

        Args:
            coming: whether connections that come meanwhile get no answer either.
        """

        def apply() -> None:
            self._thawed.clear()
            self._freezes_coming = coming
            for tunnel in self.tunnels:
                tunnel.frozen = True

        self._apply(apply)

    def thaw(self) -> None:
        """Carry everything again, and what was sent meanwhile first."""

        def apply() -> None:
            self._freezes_coming = False
            for tunnel in self.tunnels:
                tunnel.frozen = False
            self._thawed.set()

        self._apply(apply)

    @property
    def url(self) -> str:
        """The URL for programs that use an HTTP proxy."""
        return f"http://{self._address}"

    @property
    def socks_url(self) -> str:
        """The URL for programs that use a SOCKS5 proxy and leave the resolution of names to it."""
        return f"socks5h://{self._address}"

    def may_cut(self, tunnel: Tunnel) -> bool:
        """Decide whether to cut a tunnel that is due; see `Cutter`."""
        if self._cuts is not None and self.cuts_made >= self._cuts:
            return False
        with self._condition.change():
            tunnel.cut_at = time.monotonic()
            self.cuts_made += 1
        return True

    async def _serve(self, sock: socket.socket) -> None:
        client = RawStream(sock)
        try:
            while self._freezes_coming:
                await self._thawed.wait()
            negotiation = await self._negotiate(client)
            target = await self._open(negotiation) if negotiation else None
            if negotiation is None or target is None:
                await client.shut()
            else:
                await self._carry(negotiation, client, target)
            await client.linger()
        finally:
            client.close()

    async def _negotiate(self, client: RawStream) -> Negotiation | None:
        """Read what the client asks for; return None if it was refused already."""
        if self._target is not None:
            return FixedTarget(client, self._target)
        if await client.peek() == socks5.VERSION:
            return await socks5.negotiate(client, self._auth)
        return await http_proxy.negotiate(client, self._auth, self._refuse or _DEFAULT_REFUSAL)

    async def _open(self, negotiation: Negotiation) -> RawStream | None:
        """Connect to the target; return None if the client was refused instead."""
        refusal = ProxyRefusal.ON_PURPOSE
        if self._refuse is None:
            try:
                return await dial(*negotiation.target, allow_remote=self._allow_remote)
            except ForbiddenTargetError:
                refusal = ProxyRefusal.FORBIDDEN
            except OSError:
                refusal = ProxyRefusal.UNREACHABLE
        await negotiation.refuse(refusal)
        return None

    async def _carry(self, negotiation: Negotiation, client: RawStream, target: RawStream) -> None:
        """Carry a tunnel from its opening to its end."""
        tunnel = Tunnel(negotiation.kind, negotiation.target, time.monotonic())
        try:
            with self._condition.change():
                self.tunnels.append(tunnel)
            await negotiation.grant()
            if negotiation.head:
                await target.send(negotiation.head)
            await TunnelRun(tunnel, client, target, self._rules, self, self._condition, self._thawed).run()
            with self._condition.change():
                tunnel.closed_at = time.monotonic()
            await asyncio.gather(client.linger(), target.linger())
        finally:
            target.close()
