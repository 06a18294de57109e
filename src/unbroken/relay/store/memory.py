"""A store of turns in this process, bounded: the turns that ended first make room for others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import anyio

from unbroken.core.http import Headers
from unbroken.relay.store.contract import (
    ABANDONED,
    CLAIM,
    CUT,
    HEAD,
    MAX_LISTED,
    MAX_PART,
    MAX_PUBLISHED,
    MAX_PUBLISHERS,
    MAX_TURN,
    WATCHED,
    Ending,
    TurnInfo,
    TurnPart,
    TurnState,
    TurnWriter,
)

OVERHEAD = 4096
"""How many bytes each turn counts besides its body: for its head, and for what is known of it."""

_WRITER = "its writer"


class MemoryStore:
    """A store of turns in this process.

    Args:
        keep: seconds for which a turn is kept after its end.
        capacity: how many bytes of all turns are kept.
        max_turn: how many bytes of one turn are kept.
        lease: seconds for which a writer holds its lease; it is never renewed.
        claim: seconds after which a claim lapses.
        clock: monotonic seconds.

    Attributes:
        problem: always ``""``.
        outlives_relay: false.
        size: how many bytes of all turns are kept now.
    """

    def __init__(
        self,
        keep: float,
        capacity: int,
        *,
        max_turn: int = MAX_TURN,
        lease: float = math.inf,
        claim: float = CLAIM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem = ""
        self.outlives_relay = False
        self.size = 0
        self._keep = keep
        self._capacity = capacity
        self._max_turn = max_turn
        self._lease = lease
        self._claim = claim
        self._clock = clock
        self._turns: dict[str, MemoryTurn] = {}
        self._ended: dict[str, None] = {}  # ids, in the order of their ends or last readings
        self._published: dict[str, tuple[float, bytes]] = {}  # until when, and what
        self._watched_until = -math.inf

    async def open(self, *, was_there: bool = False) -> None:
        """As the contract says."""

    async def aclose(self) -> None:
        """As the contract says."""
        for turn in tuple(self._turns.values()):
            self._delete(turn)

    def begin(self, info: TurnInfo, on_lost: Callable[[], None]) -> TurnWriter:
        """As the contract says."""
        turn = MemoryTurn(info, on_lost, self._clock() + self._lease)
        if self._make_room(OVERHEAD):
            self._turns[info.id] = turn
            self.size += OVERHEAD
        else:
            turn.lost = self._full
        return MemoryWriter(self, turn)

    async def read(self, turn_id: str, after: int, wait: float, *, ends_abandoned: bool = True) -> TurnPart | None:
        """As the contract says."""
        turn = self._get(turn_id)
        if turn is None:
            return None
        part = turn.part(after)
        with anyio.move_on_after(wait):
            while part.is_empty:
                await turn.changed()
                part = turn.part(after)
        if turn_id not in self._turns and part.is_empty:
            return None
        if part.is_empty and turn.is_abandoned(self._clock()):
            if not ends_abandoned:
                return ABANDONED
            self.end(turn, "cut")
        return part

    async def find(self, turn_id: str) -> TurnState | None:
        """As the contract says."""
        turn = self._get(turn_id)
        return turn.state(self._clock()) if turn else None

    async def keyed(self, key: str) -> TurnState | None:
        """As the contract says."""
        self._expire()
        found = [turn for turn in self._turns.values() if turn.info.key == key]
        return found[-1].state(self._clock()) if found else None

    async def claim(self, request: str) -> str | None:
        """As the contract says."""
        self._expire()
        for turn in self._turns.values():
            if turn.info.request == request and turn.is_claimable(self._clock()):
                turn.claimed_until = self._clock() + self._claim
                return turn.info.id
        return None

    def was_abandoned(self, turn_id: str) -> bool:
        """As the contract says."""
        turn = self._turns.get(turn_id)
        return turn is not None and turn.is_abandoned(self._clock())

    async def release(self, turn_id: str) -> None:
        """As the contract says."""
        if turn := self._get(turn_id):
            turn.claimed_until = -math.inf

    async def collected(self, turn_id: str) -> None:
        """As the contract says."""
        if turn := self._get(turn_id):
            turn.claimed_until = math.inf

    async def touch(self, turn_id: str) -> None:
        """As the contract says."""
        if turn := self._get(turn_id):
            turn.read_at = self._clock()
            if turn.claimed_until > -math.inf:
                turn.claimed_until = max(turn.claimed_until, turn.read_at + self._claim)
            if turn.ending:
                self._set_expiry(turn)

    async def turns(self, owner: str) -> list[TurnState]:
        """As the contract says."""
        self._expire()
        now = self._clock()
        return [turn.state(now) for turn in reversed(self._turns.values()) if turn.info.owner == owner][:MAX_LISTED]

    async def remove(self, turn_id: str) -> None:
        """As the contract says."""
        if turn := self._get(turn_id):
            turn.is_removed = True
            self._delete(turn, "it was deleted")

    async def lease(self, turn_id: str, holder: str, seconds: float) -> int | None:
        """As the contract says."""
        turn = self._get(turn_id)
        return turn.lease(holder, self._clock(), seconds) if turn and not turn.ending else None

    async def cut(self, turn_id: str, epoch: int, *, is_taken_over: bool = False) -> bool:
        """As the contract says."""
        turn = self._get(turn_id)
        if turn is None or turn.epoch != epoch or turn.ending:
            return False
        turn.is_taken_over = is_taken_over
        self.end(turn, "cut")
        return True

    async def watched(self) -> bool:
        """As the contract says."""
        return self._clock() < self._watched_until

    async def publish(self, name: str, data: bytes, seconds: float) -> None:
        """As the contract says."""
        self._published[name] = (self._clock() + seconds, data)

    async def published(self) -> list[bytes]:
        """As the contract says."""
        now = self._clock()
        self._watched_until = now + WATCHED
        self._published = {name: shown for name, shown in self._published.items() if now < shown[0]}
        found = [data for _, data in self._published.values() if len(data) <= MAX_PUBLISHED]
        return found[-MAX_PUBLISHERS:]

    # Of the writers

    def append(self, turn: MemoryTurn, data: bytes) -> None:
        """Keep further bytes of a turn, or delete it if there is no room."""
        if len(turn.body) + len(data) > self._max_turn:
            self._delete(turn, f"it is longer than {self._max_turn} bytes")
        elif not self._make_room(len(data)):
            self._delete(turn, self._full)
        else:
            turn.body += data
            self.size += len(data)
            turn.note_change()

    def end(self, turn: MemoryTurn, ending: Ending) -> None:
        """Note how a turn ended, and keep it for a while."""
        turn.ending = ending
        self._set_expiry(turn)
        turn.note_change()

    @property
    def _full(self) -> str:
        return f"{self._capacity} bytes are kept already (--max-kept)"

    def _make_room(self, size: int) -> bool:
        self._expire()
        for turn_id in tuple(self._ended):
            if self.size + size <= self._capacity:
                break
            self._delete(self._turns[turn_id])
        return self.size + size <= self._capacity

    def _set_expiry(self, turn: MemoryTurn) -> None:
        turn.expires = self._clock() + self._keep
        self._ended.pop(turn.info.id, None)
        self._ended[turn.info.id] = None

    def _delete(self, turn: MemoryTurn, why: str = "it is kept no more") -> None:
        del self._turns[turn.info.id]
        self._ended.pop(turn.info.id, None)
        self.size -= OVERHEAD + len(turn.body)
        turn.lose(why)

    def _get(self, turn_id: str) -> MemoryTurn | None:
        self._expire()
        return self._turns.get(turn_id)

    def _expire(self) -> None:
        now = self._clock()
        for turn_id in tuple(self._ended):
            if self._turns[turn_id].expires > now:
                break
            self._delete(self._turns[turn_id])


class MemoryTurn:
    """A turn that is kept.

    Args:
        info: what is known of it.
        on_lost: see :meth:`unbroken.relay.store.contract.Store.begin`.
        held_until: until when its writer holds the lease, on the clock.

    Attributes:
        body: what has come of its body.
        ending: how it ended.
        has_left: whether its client went away before its end.
        claimed_until: until when nobody else can claim it, on the clock.
        expires: when it is deleted, on the clock; infinite while it runs.
        read_at: when it was last read, on the clock.
        epoch: of its last lease.
        lost: why it was deleted, ``""`` if it was not.
    """

    def __init__(self, info: TurnInfo, on_lost: Callable[[], None], held_until: float) -> None:
        self.info = info
        self.body = bytearray()
        self.head: TurnPart | None = None
        self.ending: Ending = ""
        self.is_taken_over = False
        self.has_left = False
        self.claimed_until = -math.inf
        self.expires = math.inf
        self.read_at = -math.inf
        self.epoch = 1
        self.lost = ""
        self.is_removed = False
        self._holder = _WRITER
        self._held_until = held_until
        self._on_lost = on_lost
        self._change: anyio.Event | None = None

    def is_claimable(self, now: float) -> bool:
        """Return whether a client may claim it."""
        is_left = self.has_left or self.is_abandoned(now)
        return is_left and self.claimed_until <= now and self.ending in ("", "whole")

    def is_abandoned(self, now: float) -> bool:
        """Return whether its writer has died, and nobody has ended it."""
        return not self.ending and self._held_until <= now

    def state(self, now: float) -> TurnState:
        """Return what is known of it."""
        return TurnState(
            info=self.info,
            size=len(self.body),
            ending=self.ending,
            has_left=self.has_left,
            is_written=bool(self.ending) or self._held_until > now,
            unread=now - self.read_at,
            is_taken_over=self.is_taken_over,
        )

    def part(self, after: int) -> TurnPart:
        """Return what follows a position."""
        if after == HEAD:
            return self.head or (CUT if self.ending or self.lost else TurnPart())
        if data := bytes(self.body[after : after + MAX_PART]):
            return TurnPart(data)
        if self.lost or (self.ending and after > len(self.body)):
            return CUT
        return TurnPart(ending=self.ending)

    def lease(self, holder: str, now: float, seconds: float) -> int | None:
        """Take the lease, or hold it for longer."""
        if self._holder != holder and self._held_until > now:
            return None
        is_writers = self._holder == _WRITER
        self.epoch += self._holder != holder
        self._holder, self._held_until = holder, now + seconds
        if is_writers:
            self._on_lost()
        return self.epoch

    def end_lease(self) -> None:
        """Let somebody else take the lease."""
        self._holder, self._held_until = "", -math.inf

    def lose(self, why: str) -> None:
        """Note that it was deleted."""
        self.lost = why
        self.note_change()
        if not self.ending:
            self._on_lost()

    def note_change(self) -> None:
        """Wake whoever waits for a change."""
        change, self._change = self._change, None
        if change:
            change.set()

    async def changed(self) -> None:
        """Wait for the next change."""
        self._change = self._change or anyio.Event()
        await self._change.wait()


class MemoryWriter:
    """A writer of a turn in a :class:`MemoryStore`."""

    def __init__(self, store: MemoryStore, turn: MemoryTurn) -> None:
        self._store = store
        self._turn = turn
        self._epoch = turn.epoch
        self._is_over = False

    @property
    def lost(self) -> str:
        """As the contract says."""
        return self._turn.lost or ("another relay has taken it" if self.is_superseded else "")

    @property
    def is_superseded(self) -> bool:
        """As the contract says."""
        return self._turn.epoch != self._epoch

    @property
    def is_removed(self) -> bool:
        """As the contract says."""
        return self._turn.is_removed

    def head(self, status: int, headers: Headers) -> None:
        """As the contract says."""
        if self._writes and self._turn.head is None:
            self._turn.head = TurnPart(status=status, headers=tuple(headers))
            self._turn.note_change()

    def append(self, data: bytes) -> None:
        """As the contract says."""
        if self._writes and data:
            self._store.append(self._turn, data)

    def leave(self) -> None:
        """As the contract says."""
        if self._writes:
            self._turn.has_left, self._turn.claimed_until = True, -math.inf

    def close(self, ending: Ending) -> None:
        """As the contract says."""
        if self._writes:
            self._store.end(self._turn, ending)

    def hand_over(self) -> None:
        """As the contract says."""
        if self._writes:
            self._is_over = True
            self._turn.end_lease()

    @property
    def _writes(self) -> bool:
        return not (self.lost or self._turn.ending or self._is_over)
