"""A tunnel between two connections, until one side ends it, or until it has been idle for too long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol

from unbroken.lab.condition import Condition
from unbroken.lab.raw_stream import RawStream

TunnelKind = Literal["connect", "forward", "socks5", "fixed"]
"""How a client asked for its tunnel: CONNECT, an absolute request target, SOCKS5, or without asking."""

How = Literal["rst", "fin"]
"""How a tunnel is cut."""


@dataclass(slots=True, eq=False)
class Tunnel:
    """A proxy's record of a connection that it has passed on. Times are `time.monotonic()` seconds.

    Attributes:
        kind: how the client asked for it.
        target: host and port, as the client named them.
        opened_at: when the target was connected.
        cut_at: when the proxy cut it, by its rules; None: it has not.
        closed_at: when it ended, in any way; None: it is open.
        bytes_up: bytes that the client sent through it, without the heads that the proxy itself read.
        bytes_down: bytes that the target sent through it.
        frozen: whether it carries nothing while its proxy is frozen.
    """

    kind: TunnelKind
    target: tuple[str, int]
    opened_at: float
    cut_at: float | None = None
    closed_at: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    frozen: bool = False


class Cutter(Protocol):
    """The decision about tunnels that are due to be cut."""

    def may_cut(self, tunnel: Tunnel) -> bool:
        """Decide whether to cut a tunnel that has gone idle, or has carried enough; if so, record the cut."""


@dataclass(frozen=True, slots=True)
class TunnelRules:
    """The rules for a tunnel; `CuttingProxy` describes them."""

    idle: float | None
    how: How
    black_hole_after: float | None
    cut_after: int | None = None


class TunnelRun:
    """The run of one tunnel from its opening to its end."""

    def __init__(
        self,
        tunnel: Tunnel,
        client: RawStream,
        target: RawStream,
        rules: TunnelRules,
        cutter: Cutter,
        condition: Condition,
        thawed: asyncio.Event,
    ) -> None:
        self._tunnel = tunnel
        self._client = client
        self._target = target
        self._rules = rules
        self._cutter = cutter
        self._condition = condition
        self._thawed = thawed
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._moved_at = self._loop.time()
        self._pumps: list[asyncio.Task[None]] = []
        self._carried_enough = asyncio.Event()

    async def run(self) -> None:
        """Carry bytes until both directions have ended, or the tunnel was cut."""
        async with asyncio.TaskGroup() as group:
            self._pumps = [
                group.create_task(self._pump(self._client, self._target)),
                group.create_task(self._pump(self._target, self._client)),
            ]
            reapers = [group.create_task(self._cut_when_idle()), group.create_task(self._cut_when_carried())]
            await asyncio.wait(self._pumps)
            for reaper in reapers:
                reaper.cancel()

    async def _pump(self, source: RawStream, sink: RawStream) -> None:
        """Carry the bytes of one direction, then end the other connection in the same way."""
        try:
            while data := await source.read():
                await self._until_thawed()
                data = self._allowed(source, data)
                self._note_moved(source, len(data))
                if data and not self._is_black_hole:
                    await sink.send(data)
            await self._until_thawed()
        except OSError:
            source.reset()
            return
        if self._is_black_hole:
            await self._client.wait_until_left(None)
            self._target.reset()  # which ends the other direction too
        elif source.was_reset:
            sink.reset()
        else:
            sink.send_eof()

    async def _until_thawed(self) -> None:
        while self._tunnel.frozen and not self._thawed.is_set():
            await self._thawed.wait()

    @property
    def _is_black_hole(self) -> bool:
        after = self._rules.black_hole_after
        return after is not None and self._loop.time() - self._opened_at >= after

    def _note_moved(self, source: RawStream, count: int) -> None:
        self._moved_at = self._loop.time()
        with self._condition.change():
            if source is self._client:
                self._tunnel.bytes_up += count
            else:
                self._tunnel.bytes_down += count

    def _allowed(self, source: RawStream, data: bytes) -> bytes:
        """Return the part of the target's bytes that comes before the cut."""
        limit = self._rules.cut_after
        if limit is None or source is self._client or self._tunnel.bytes_down + len(data) < limit:
            return data
        if not self._carried_enough.is_set() and not self._cutter.may_cut(self._tunnel):
            return data
        self._carried_enough.set()
        return data[: max(0, limit - self._tunnel.bytes_down)]

    async def _cut_when_carried(self) -> None:
        await self._carried_enough.wait()
        await self._cut()

    async def _cut_when_idle(self) -> None:
        if self._rules.idle is None:
            return
        while (remaining := self._moved_at + self._rules.idle - self._loop.time()) > 0:
            await asyncio.sleep(remaining)
        if self._cutter.may_cut(self._tunnel):
            await self._cut()

    async def _cut(self) -> None:
        for stream in (self._client, self._target):
            if self._rules.how == "rst":
                stream.reset()
            else:
                await stream.shut()
        for pump in self._pumps:
            pump.cancel()
