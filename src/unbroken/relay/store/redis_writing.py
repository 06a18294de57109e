"""The writing of all turns to Redis or Valkey: behind the events, and in one go for each tick of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from unbroken.core.http import Headers
from unbroken.relay.store import redis_scripts as scripts
from unbroken.relay.store.contract import Ending, StoreError, TurnInfo
from unbroken.relay.store.redis_link import Garbage, Link

MAX_WAITING = 32 * 1024 * 1024
"""How many bytes of all turns wait to be written, at most."""

MAX_ENTRY = 64 * 1024
"""How many bytes an entry has, at most."""

FIRST_BACKOFF, MAX_BACKOFF = 0.1, 5.0
"""Seconds until what has failed is written again: they double."""

STANDSTILL = 2
"""For how many renewals, at least, a process stands still that may have lost its leases by that."""

RENEW_RETRY = 0.5
"""Seconds, at most, until leases are renewed once more where that has failed."""

Call = tuple[str, Sequence[str], Sequence[Any]]

REMOVED_EVERY = 1.0
"""Seconds between two looks for turns that were deleted elsewhere."""

_WHY = {
    "gone": "the store has lost it",
    "stale": "another relay has taken it",
    "removed": "it was deleted",
    "layout": "the store's layout changed",
}


class Times(msgspec.Struct, frozen=True):
    """For how long keys stay, in milliseconds.

    Attributes:
        lease: a lease that is not renewed.
        running: what is kept of a turn whose writer does nothing.
        ended: what is kept of a turn that has ended.
        marker: the version of the layout, at least.
        claim: a claim of a turn that nobody reads.
    """

    lease: int
    running: int
    ended: int
    marker: int
    claim: int


class TurnKeys:
    """The keys of one turn."""

    def __init__(self, turn_id: str) -> None:
        self.turn = f"{scripts.PREFIX}turn:{turn_id}"
        self.events = f"{scripts.PREFIX}events:{turn_id}"
        self.lease = f"{scripts.PREFIX}lease:{turn_id}"


class RedisWriter:
    """The writer of one turn, see the contract.

    Args:
        queue: the queue of all writers.
        info: the turn.
        holder: who writes.
        times: for how long keys stay.
        max_turn: how many bytes are kept.
        on_lost: called once it is lost.
    """

    def __init__(
        self, queue: WriteQueue, info: TurnInfo, holder: str, times: Times, max_turn: int, on_lost: Callable[[], None]
    ) -> None:
        self.lost = ""
        self.is_superseded = False
        self.is_removed = False
        self.id = info.id
        self.info = info
        self.waiting = 0
        """How many bytes wait to be written."""
        self._queue = queue
        self._keys = TurnKeys(info.id)
        self._holder = holder
        self._times = times
        self._max_turn = max_turn
        self._on_lost = on_lost
        self._size = 0
        self._begun = False
        self._closed = False
        self._epoch = 1
        self._calls: deque[Call] = deque()
        self._bytes = bytearray()
        self._written = 0
        fields = (info.id, msgspec.json.encode(info), info.owner, info.request, info.key)
        args = (*fields, holder, times.lease, times.running, times.marker)
        self._add(scripts.BEGIN, self._keys.turn, self._keys.lease, args=args)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is to be written."""
        return bool(self.lost) or (self._closed and not self._calls)

    @property
    def holds_lease(self) -> bool:
        """Whether the store knows of the turn, and of no end of it; further bytes may wait to be written."""
        return self._begun and not self._closed and not self.lost

    def head(self, status: int, headers: Headers) -> None:
        """As the contract says."""
        data = msgspec.json.encode(
            [status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]]
        )
        self._add(scripts.WRITE_HEAD, self._keys.turn, self._keys.events, args=(self._epoch, data, self._times.running))

    def append(self, data: bytes) -> None:
        """As the contract says."""
        if self.lost or self._closed:
            return
        self._size += len(data)
        if self._size > self._max_turn:
            self.lose(f"it is longer than {self._max_turn} bytes")
            self._queue.forget(self.id)
            return
        self._bytes += data
        self.waiting += len(data)
        self._queue.note(self, len(data))

    def leave(self) -> None:
        """As the contract says."""
        self._add(scripts.LEAVE, self._keys.turn, args=(self._epoch, self.id, self._times.running))

    def close(self, ending: Ending) -> None:
        """As the contract says."""
        args = (self._epoch, self.id, ending, self._size, self._times.ended, self._times.marker)
        self._add(scripts.CLOSE, self._keys.turn, self._keys.events, self._keys.lease, args=args)
        self._closed = True

    def hand_over(self) -> None:
        """As the contract says."""
        self._add(scripts.HAND_OVER, self._keys.turn, self._keys.lease, args=(self._epoch,))
        self._closed = True

    def renewal(self) -> Call:
        """Return the call that holds the lease for longer."""
        keys = (self._keys.turn, self._keys.events, self._keys.lease)
        times = self._times
        return scripts.RENEW, keys, (self._epoch, self.id, self._holder, times.lease, times.running, times.marker)

    def take(self) -> list[Call]:
        """Return the calls that are to be made now; they stay until :meth:`taken` says what came of them."""
        self._add_bytes()
        return list(self._calls)

    def taken(self, answers: Sequence[Any]) -> None:
        """Take the answers to the calls that :meth:`take` returned first."""
        for answer in answers:
            if self.lost:
                return
            script, _, args = self._calls.popleft()
            self._begun = True
            if script is scripts.APPEND:
                self.waiting -= len(args[2])
                self._queue.written(len(args[2]))
            self.judge(answer)

    def judge(self, answer: Any) -> None:
        """Take what a script says of this turn."""
        if isinstance(answer, Garbage):
            self.lose("what the store has under its name is something else")
        elif answer != b"ok":
            # Who stood still for so long has not seen that it was taken, and deleted as its time was over.
            is_taken = answer == b"stale" or (answer == b"gone" and self._queue.stood_still)
            self.is_superseded, self.is_removed = is_taken, answer == b"removed"
            self.lose(_WHY.get(bytes(answer).decode("latin-1"), "the store refuses it"))

    def lose(self, why: str) -> None:
        """Give it up."""
        if self.lost:
            return
        self.lost = why
        self._calls.clear()
        self._bytes.clear()
        self._queue.written(self.waiting)
        self.waiting = 0
        if not self._closed:
            self._on_lost()

    def _add(self, script: str, *keys: str, args: Sequence[Any]) -> None:
        if self.lost or self._closed:
            return
        self._add_bytes()
        self._calls.append((script, keys, args))
        self._queue.note(self, 0)

    def _add_bytes(self) -> None:
        """Make calls of the bytes that wait."""
        data, self._bytes = bytes(self._bytes), bytearray()
        keys = (self._keys.turn, self._keys.events)
        for at in range(0, len(data), MAX_ENTRY):
            piece = data[at : at + MAX_ENTRY]
            self._calls.append((scripts.APPEND, keys, (self._epoch, self._written, piece, self._times.running)))
            self._written += len(piece)


class WriteQueue:
    """What is to be written of all turns.

    Args:
        link: the connection.
        on_problem: called with what is wrong, for a person, and with ``""`` once nothing is any more.
        renew: seconds between two renewals of all leases.
        max_waiting: how many bytes may wait.

    Attributes:
        stood_still: whether this process stood still for so long that leases may be lost, since the last renewal.
    """

    def __init__(
        self, link: Link, on_problem: Callable[[str], None], renew: float, max_waiting: int = MAX_WAITING
    ) -> None:
        self._link = link
        self._on_problem = on_problem
        self._renew = renew
        self._max_waiting = max_waiting
        self._writers: dict[str, RedisWriter] = {}
        self._dirty: dict[str, RedisWriter] = {}
        self._removed: list[Call] = []
        self._waiting = 0
        self.stood_still = False
        self._round = asyncio.Event()
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to write."""
        running = (self._run(), self._hold_leases(), self._notice_removals())
        self._tasks = [asyncio.create_task(one) for one in running]

    async def aclose(self, patience: float) -> None:
        """Write what waits, for so many seconds at most, and end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._is_idle.wait()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settle(self, concerns: Callable[[TurnInfo], bool]) -> None:
        """Wait until everything is written that was given so far of the turns that a caller is concerned with."""
        for _ in range(2):  # a round that runs may have begun before
            if not any(concerns(writer.info) for writer in self._dirty.values()):
                return
            await self._round.wait()

    def note(self, writer: RedisWriter, size: int) -> None:
        """Note that a writer has something to be written: so many further bytes."""
        self._waiting += size
        self._writers[writer.id] = self._dirty[writer.id] = writer
        self._has_work.set()
        self._is_idle.clear()
        if self._waiting > self._max_waiting:
            for one in tuple(self._writers.values()):
                if one.waiting:
                    one.lose("the store does not keep up")

    def written(self, size: int) -> None:
        """Note that bytes no longer wait."""
        self._waiting -= size

    def forget(self, turn_id: str) -> None:
        """Delete what is kept of a turn that was given up."""
        keys = TurnKeys(turn_id)
        owner = f"{scripts.PREFIX}owner:"
        self._removed.append((scripts.REMOVE, (owner, keys.turn, keys.events, keys.lease), (turn_id, "")))
        self._has_work.set()

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            try:
                await self._write()
            except StoreError as exc:
                self._on_problem(str(exc))
                await asyncio.sleep(backoff)
                backoff = min(MAX_BACKOFF, backoff * 2)
                self._has_work.set()
                continue
            self._on_problem("")
            backoff = FIRST_BACKOFF
            if not self._has_work.is_set():
                self._is_idle.set()

    async def _write(self) -> None:
        writers, removed = list(self._dirty.values()), tuple(self._removed)
        calls = [(writer, writer.take()) for writer in writers]
        answers = iter(await self._link.run_all([call for _, made in calls for call in made] + list(removed)))
        del self._removed[: len(removed)]
        for writer, made in calls:
            writer.taken([next(answers) for _ in made])
            if not writer.waiting and self._dirty.get(writer.id) is writer and not writer.take():
                del self._dirty[writer.id]
            if writer.is_closed:
                self._dirty.pop(writer.id, None)
                self._writers.pop(writer.id, None)
        if self._dirty or self._removed:
            self._has_work.set()
        done, self._round = self._round, asyncio.Event()
        done.set()

    async def _hold_leases(self) -> None:
        pause, clock = self._renew, asyncio.get_running_loop().time
        while True:
            due = clock() + pause
            await asyncio.sleep(pause)
            self.stood_still = self.stood_still or clock() - due > STANDSTILL * self._renew
            try:
                await self._renew_leases()
                pause, self.stood_still = self._renew, False
            except StoreError:  # after a stop of this process the answer may only seem to be late
                pause = min(self._renew, RENEW_RETRY)

    async def _notice_removals(self) -> None:
        """Tell writers that write nothing for now, too, that their turns were deleted."""
        while True:
            await asyncio.sleep(REMOVED_EVERY)
            with contextlib.suppress(StoreError, Garbage):
                removed = await self._link.call("ZRANGE", f"{scripts.PREFIX}removed", 0, -1) if self._writers else []
                for name in removed:
                    if writer := self._writers.pop(name.decode("latin-1"), None):
                        writer.judge(b"removed")

    async def _renew_leases(self) -> None:
        writers = [writer for writer in self._writers.values() if writer.holds_lease]
        answers = await self._link.run_all([writer.renewal() for writer in writers]) if writers else []
        for writer, answer in zip(writers, answers, strict=True):
            writer.judge(answer)
            if writer.is_closed:
                self._writers.pop(writer.id, None)
