"""The one reader of all streams that are waited for, on one connection (``XREAD BLOCK``)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from unbroken.relay.store.contract import StoreError
from unbroken.relay.store.redis_link import Garbage, Link

Entry = tuple[bytes, Any]
"""The id of an entry of a stream, and its fields."""

_BLOCK = 1.0
"""Seconds for which one command blocks, at most."""

_RACE = 0.005
"""Seconds after which a command that had not begun to block is told again not to."""

_ENTRIES = 64
"""How many entries of a stream are read at once, at most; fewer of each where many are waited for."""


class StreamReader:
    """Reads streams from many positions on one connection.

    Args:
        reading: the connection on which commands block.
        other: another one, over which they are told to stop.
    """

    def __init__(self, reading: Link, other: Link) -> None:
        self._reading = reading
        self._other = other
        self._waiting: dict[str, dict[asyncio.Future[list[Entry]], str]] = {}
        self._changed = asyncio.Event()
        self._number: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._waker: asyncio.Task[None] | None = None

    async def read(self, stream: str, after: str, wait: float) -> list[Entry]:
        """Return the entries behind an id, as soon as there are any; none if none come in time.

        Raises:
            StoreError: the server fails.
            Garbage: what is there is no stream.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        came: asyncio.Future[list[Entry]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(stream, {})[came] = after
        self._wake()
        try:
            async with asyncio.timeout(wait):
                return await came
        except TimeoutError:
            return []
        finally:
            self._forget(stream, came)

    async def aclose(self) -> None:
        """End."""
        for task in (self._task, self._waker):
            if task:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _forget(self, stream: str, came: asyncio.Future[list[Entry]]) -> None:
        waiting = self._waiting.get(stream, {})
        waiting.pop(came, None)
        if not waiting:
            self._waiting.pop(stream, None)

    def _wake(self) -> None:
        self._changed.set()
        if self._number is not None and (self._waker is None or self._waker.done()):
            self._waker = asyncio.create_task(self._unblock())

    async def _unblock(self) -> None:
        """Have the command return that runs, while it does not know of all that is waited for."""
        with contextlib.suppress(StoreError, Garbage):
            while self._changed.is_set() and self._number is not None:
                await self._other.call("CLIENT", "UNBLOCK", self._number)
                await asyncio.sleep(_RACE)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            try:
                if self._number is None:
                    self._number = await self._reading.call("CLIENT", "ID")
                while self._waiting:
                    await self._read_once()
            except (StoreError, Garbage) as exc:
                self._number = None
                await self._fail(exc)
            if not self._waiting:
                self._changed.clear()

    async def _read_once(self) -> None:
        self._changed.clear()
        wanted = {stream: min(afters.values(), key=_order) for stream, afters in self._waiting.items()}
        count = max(4, _ENTRIES // len(wanted))
        command = ("XREAD", "COUNT", count, "BLOCK", int(_BLOCK * 1000), "STREAMS", *wanted, *wanted.values())
        for name, entries in await self._reading.call(*command) or []:
            self._hand_out(name.decode(), wanted[name.decode()], entries)

    def _hand_out(self, stream: str, since: str, entries: list[Entry]) -> None:
        """Give the entries of a stream, read from an id, to whoever waits for what follows that or a later one."""
        for future, after in tuple(self._waiting.get(stream, {}).items()):
            if _order(after) < _order(since):
                continue  # it has come meanwhile
            behind = [entry for entry in entries if _order(entry[0].decode()) > _order(after)]
            if behind and not future.done():
                future.set_result(behind)
                self._forget(stream, future)

    async def _fail(self, error: StoreError | Garbage) -> None:
        """Fail whoever waits. Where one stream is to blame, it fails those alone that wait for it."""
        for stream, waiting in tuple(self._waiting.items()):
            if isinstance(error, Garbage):
                try:
                    await self._other.call("XLEN", stream)
                    continue
                except (StoreError, Garbage):
                    pass
            for future in tuple(waiting):
                if not future.done():
                    future.set_exception(error)
                self._forget(stream, future)


def _order(entry_id: str) -> tuple[int, int]:
    position, _, kind = entry_id.partition("-")
    return int(position), int(kind or 0)
