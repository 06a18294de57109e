"""What the relays that share a store show together: each publishes its snapshot, and a page merges all of them.

Nothing is published while no page is open. A publication has what the page shows: figures and codes, never content or
keys. It may have been written by somebody else, and is checked when it is read.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from unbroken.relay.recorder import LIVE, Snapshot, merged
from unbroken.relay.store.contract import MAX_PUBLISHED, WATCHED, Store, StoreError

EVERY = 2.0
"""Seconds between two publications of a relay."""

LOOK_EVERY = 1.0
"""Seconds after which a page reads the publications of the others once more."""

FIRST_LOOK = 1.0
"""Seconds for which a page that is opened waits for them."""

SHOWN_FOR = 10.0
"""Seconds after which a relay that publishes nothing is left out. One that has nothing new publishes twice as often."""

_LARGEST = 1e12
"""No number of a publication is larger, or negative: it would be a moment, and moments are seconds since the epoch."""


class Publication(msgspec.Struct, frozen=True):
    """What a relay publishes.

    Attributes:
        name: the relay's, of this run.
        snapshot: its snapshot.
    """

    name: str
    snapshot: Snapshot


class Replicas:
    """The relays that share a store, as one of them sees them.

    Args:
        store: the store.
        own: makes the snapshot of this relay, see :attr:`unbroken.relay.app.Relay.gather`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        own: Callable[[dict[str, int]], Awaitable[Snapshot]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._own = own
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._others: dict[str, Snapshot] = {}
        self._read: dict[bytes, Publication | None] = {}
        self._problem = ""
        self._looked_at = -math.inf
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        self._is_wanted = anyio.Event()
        self._has_looked = anyio.Event()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._publish_while_watched)
        self._tasks.start_soon(self._look_while_wanted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    async def gather(self, seen: dict[str, int]) -> Snapshot:
        """Return the snapshot of all relays, as :attr:`unbroken.relay.app.Relay.gather`."""
        self._is_wanted.set()
        if self._clock() - self._looked_at > WATCHED:
            self._others = {}  # of the last time that a page was open
            if self._has_looked.is_set():
                self._has_looked = anyio.Event()
            with anyio.move_on_after(FIRST_LOOK):
                await self._has_looked.wait()
        own = await self._own(seen)
        if self._problem:
            alone = own.shows or "this relay alone"
            return msgspec.structs.replace(own, shows=f"{alone}: the store cannot be read ({self._problem})")
        if not self._others:
            return msgspec.structs.replace(own, shows="")
        others = [_since(snapshot, name, seen) for name, snapshot in self._others.items()]
        together = merged([own, *others])
        return msgspec.structs.replace(together, shows=f"{len(others) + 1} relays together")

    async def _publish_while_watched(self) -> None:
        last, due = b"", 0.0
        while True:
            try:
                data = _encoded(Publication(self._name, await self._own({}))) if await self._store.watched() else b""
                if data and (data != last or self._clock() >= due):
                    await self._store.publish(self._name, data, SHOWN_FOR)
                    due = self._clock() + SHOWN_FOR / 2
                last = data
            except StoreError:
                last = b""  # it may have been started anew
            await anyio.sleep(EVERY)

    async def _look_while_wanted(self) -> None:
        while True:
            await self._is_wanted.wait()
            self._is_wanted = anyio.Event()
            try:
                shown = await self._store.published()
                self._problem = ""
            except StoreError as exc:
                shown, self._problem = [], str(exc)
            self._read = {data: await self._read_once(data) for data in shown}
            found = (one for one in self._read.values() if one and one.name != self._name)
            self._others = {one.name: one.snapshot for one in found}
            self._looked_at = self._clock()
            self._has_looked.set()
            await anyio.sleep(LOOK_EVERY)

    async def _read_once(self, data: bytes) -> Publication | None:
        """Read a publication, unless it was there at the last look; each takes some milliseconds."""
        if data in self._read:
            return self._read[data]
        await anyio.sleep(0)  # the turns of this relay go on between two
        return read(data)


def read(data: bytes) -> Publication | None:
    """Read a publication; ``None`` if it is none."""
    try:
        plain = msgspec.json.decode(data)
        return msgspec.convert(plain, Publication) if _is_sane(plain) else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_sane(value: Any) -> bool:
    """Return whether all numbers are such that a page can show them, and their sum."""
    match value:
        case dict():
            return all(map(_is_sane, value.values()))
        case list():
            return all(map(_is_sane, value))
        case int() | float():
            return 0 <= value < _LARGEST
    return True


def _encoded(publication: Publication) -> bytes:
    """Encode a publication; of its turns and cuts only the last where they would be too many bytes."""
    snapshot = msgspec.structs.replace(publication.snapshot, now=0.0)  # otherwise each one would be another one
    count = LIVE
    while True:
        live, recent = snapshot.live[:count], snapshot.recent[:count]
        cuts = snapshot.cuts[-count:] if count else ()
        fewer = msgspec.structs.replace(snapshot, live=live, recent=recent, cuts=cuts)
        data = msgspec.json.encode(msgspec.structs.replace(publication, snapshot=fewer))
        if len(data) <= MAX_PUBLISHED or not count:
            return data
        count //= 2


def _since(snapshot: Snapshot, name: str, seen: dict[str, int]) -> Snapshot:
    """Return a snapshot without the ended turns that were seen of this relay, and note those that now are."""
    before, seen[name] = seen.get(name, 0), snapshot.totals.turns
    if not before:
        return snapshot
    recent = snapshot.recent[: max(0, snapshot.totals.turns - before)]
    cuts = tuple(cut for record in reversed(recent) for cut in record.cuts)
    return msgspec.structs.replace(snapshot, recent=recent, cuts=cuts)
