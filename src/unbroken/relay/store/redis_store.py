"""A store of turns in Redis or Valkey. Three connections serve all turns and all readers."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from unbroken.core.http import Headers
from unbroken.relay.store import redis_scripts as scripts
from unbroken.relay.store.contract import (
    ABANDONED,
    CLAIM,
    CUT,
    ENDINGS,
    HEAD,
    LEASE,
    MAX_LISTED,
    MAX_PART,
    MAX_TURN,
    Ending,
    StoreError,
    TurnInfo,
    TurnPart,
    TurnState,
    TurnWriter,
)
from unbroken.relay.store.redis_link import Garbage, Link, check_server, check_url
from unbroken.relay.store.redis_reading import Entry, StreamReader
from unbroken.relay.store.redis_writing import RedisWriter, Times, TurnKeys, WriteQueue

ANSWER_WITHIN = 5.0
"""Seconds within which the server must answer, and within which a connection must be made."""

_LAST_WRITES = 1.0
"""Seconds for writing what waits, at the end."""


class RedisStore:
    """A store of turns in Redis 6 or later, or in Valkey.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        keep: seconds for which a turn is kept after its end.
        on_problem: called with what is wrong with the store, and with ``""`` once nothing is.
        lease: seconds for which a lease is held.
        renew: seconds between two renewals; ``None`` for a third of ``lease``.
        claim: seconds after which a claim lapses.
        max_turn: how many bytes of one turn are kept.
        answer_within: seconds within which the server must answer.

    Raises:
        UsageError: the URL cannot be read.
        MissingExtra: ``redis`` is not installed.
    """

    def __init__(
        self,
        url: str,
        keep: float,
        *,
        on_problem: Callable[[str], None] = lambda _: None,
        lease: float = LEASE,
        renew: float | None = None,
        claim: float = CLAIM,
        max_turn: int = MAX_TURN,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        check_url(url)
        self.problem = ""
        self.outlives_relay = True
        self._url = url
        self._on_problem = on_problem
        ended = max(1, int(keep * 1000))
        self._times = Times(
            lease=int(lease * 1000),
            running=ended + int(lease * 3000),
            ended=ended,
            marker=ended + int(lease * 1000),
            claim=int(claim * 1000),
        )
        self._renew = lease / 3 if renew is None else renew
        self._max_turn = max_turn
        self._answer_within = answer_within
        self._holder = secrets.token_hex(8)
        self._abandoned: set[str] = set()

    async def open(self, *, was_there: bool = False) -> None:
        """As the contract says."""
        within = self._answer_within
        self._asking, self._writing = Link(self._url, within, within), Link(self._url, within, within)
        self._reading = Link(self._url, within, None)
        try:
            await check_server(self._asking)
            await self._try_out()
        except Garbage as exc:
            await self._close_links()
            raise StoreError(f"it refuses what is needed ({exc})") from None
        except StoreError as exc:
            if not was_there:
                await self._close_links()
                raise
            self._note_problem(str(exc))
        self._streams = StreamReader(self._reading, self._asking)
        self._queue = WriteQueue(self._writing, self._note_problem, self._renew)
        self._queue.start()

    async def aclose(self) -> None:
        """As the contract says."""
        await self._queue.aclose(_LAST_WRITES)
        await self._streams.aclose()
        await self._close_links()

    def begin(self, info: TurnInfo, on_lost: Callable[[], None]) -> TurnWriter:
        """As the contract says."""
        return RedisWriter(self._queue, info, self._holder, self._times, self._max_turn, on_lost)

    async def read(self, turn_id: str, after: int, wait: float, *, ends_abandoned: bool = True) -> TurnPart | None:
        """As the contract says."""
        keys = TurnKeys(turn_id)
        try:
            entries = await self._streams.read(keys.events, "0-0" if after == HEAD else f"{after}-2", wait)
            if entries:
                return _part(entries, after)
            state = await self.find(turn_id)
            if state is None:
                return None
            if not state.is_written:
                if not ends_abandoned:
                    return ABANDONED
                await self._end_dead(turn_id)
            return CUT if state.ending and after > state.size else TurnPart()
        except Garbage:
            return CUT

    async def find(self, turn_id: str) -> TurnState | None:
        """As the contract says."""
        keys = TurnKeys(turn_id)
        await self._settle(lambda info: info.id == turn_id)
        try:
            found = await self._asking.run(scripts.FIND, (keys.turn, keys.lease))
        except Garbage:
            return None
        return _state(found, turn_id) if found else None

    async def keyed(self, key: str) -> TurnState | None:
        """As the contract says."""
        await self._settle(lambda info: info.key == key)
        try:
            found = await self._asking.call("GET", f"{scripts.PREFIX}key:{key}")
        except Garbage:
            return None
        state = await self.find(found.decode("latin-1")) if found else None
        return state if state and state.info.key == key else None

    async def claim(self, request: str) -> str | None:
        """As the contract says."""
        await self._settle(lambda info: info.request == request)
        try:
            keys = (f"{scripts.PREFIX}request:{request}", f"{scripts.PREFIX}running:{request}")
            found = await self._asking.run(scripts.CLAIM, keys, self._times.claim)
        except Garbage:
            return None
        if not found:
            return None
        turn_id: str = found[0].decode("latin-1")
        if found[1]:
            self._abandoned.add(turn_id)
        return turn_id

    def was_abandoned(self, turn_id: str) -> bool:
        """As the contract says."""
        was = turn_id in self._abandoned
        self._abandoned.discard(turn_id)
        return was

    async def release(self, turn_id: str) -> None:
        """As the contract says."""
        await self._run_quietly(scripts.RELEASE, (TurnKeys(turn_id).turn,))

    async def collected(self, turn_id: str) -> None:
        """As the contract says."""
        await self._run_quietly(scripts.COLLECTED, (TurnKeys(turn_id).turn,))

    async def touch(self, turn_id: str) -> None:
        """As the contract says."""
        keys = TurnKeys(turn_id)
        times = self._times
        args = (turn_id, times.ended, times.marker, times.claim)
        await self._run_quietly(scripts.TOUCH, (keys.turn, keys.events), *args)

    async def turns(self, owner: str) -> list[TurnState]:
        """As the contract says."""
        await self._settle(lambda info: info.owner == owner)
        try:
            ids = await self._asking.call("ZREVRANGE", f"{scripts.PREFIX}owner:{owner}", 0, MAX_LISTED - 1)
        except Garbage:
            return []
        names = [turn_id.decode("latin-1") for turn_id in ids]
        calls = [(scripts.FIND, (TurnKeys(name).turn, TurnKeys(name).lease), ()) for name in names]
        found = await self._asking.run_all(calls) if calls else []
        known = [_state(one, name) for one, name in zip(found, names, strict=True) if isinstance(one, list)]
        states = [state for state in known if state and state.info.owner == owner]
        return sorted(states, key=lambda state: state.info.started, reverse=True)

    async def remove(self, turn_id: str) -> None:
        """As the contract says."""
        keys, state = TurnKeys(turn_id), await self.find(turn_id)
        owner = f"{scripts.PREFIX}owner:{state.info.owner if state else ''}"
        args = (turn_id, self._times.lease)
        await self._run_quietly(scripts.REMOVE, (owner, keys.turn, keys.events, keys.lease), *args)

    async def lease(self, turn_id: str, holder: str, seconds: float) -> int | None:
        """As the contract says."""
        keys = TurnKeys(turn_id)
        try:
            epoch = await self._asking.run(scripts.LEASE, (keys.turn, keys.lease), holder, max(1, int(seconds * 1000)))
        except Garbage:
            return None
        return epoch if epoch > 0 else None

    async def cut(self, turn_id: str, epoch: int, *, is_taken_over: bool = False) -> bool:
        """As the contract says."""
        keys = TurnKeys(turn_id)
        args = (epoch, turn_id, "cut", "", self._times.ended, self._times.marker, "1" if is_taken_over else "")
        try:
            return bool(await self._asking.run(scripts.CLOSE, (keys.turn, keys.events, keys.lease), *args) == b"ok")
        except Garbage:
            return False

    async def watched(self) -> bool:
        """As the contract says."""
        return bool(await self._asking.call("EXISTS", f"{scripts.PREFIX}watched"))

    async def publish(self, name: str, data: bytes, seconds: float) -> None:
        """As the contract says."""
        keys = (f"{scripts.PREFIX}shown", f"{scripts.PREFIX}shown:{name}")
        await self._run_quietly(scripts.PUBLISH, keys, name, data, max(1, int(seconds * 1000)))

    async def published(self) -> list[bytes]:
        """As the contract says."""
        try:
            found = await self._asking.run(scripts.PUBLISHED, (f"{scripts.PREFIX}shown", f"{scripts.PREFIX}watched"))
        except Garbage:
            return []
        return [bytes(data) for data in found]

    async def _settle(self, concerns: Callable[[TurnInfo], bool]) -> None:
        """Wait until what was written here of certain turns can be read.

        Raises:
            StoreError: it takes too long.
        """
        try:
            async with asyncio.timeout(self._answer_within):
                await self._queue.settle(concerns)
        except TimeoutError:
            raise StoreError(self.problem or "it does not keep up") from None

    async def _end_dead(self, turn_id: str) -> None:
        """End a turn whose writer has died, unless somebody else does."""
        if epoch := await self.lease(turn_id, secrets.token_hex(8), self._times.lease / 1000):
            await self.cut(turn_id, epoch)

    async def _run_quietly(self, script: str, keys: tuple[str, ...], *args: Any) -> None:
        try:
            await self._asking.run(script, keys, *args)
        except Garbage:
            return

    async def _try_out(self) -> None:
        """Begin a turn and delete it: what is not allowed, or does not fit, is known now."""
        layout = await self._asking.call("GET", scripts.LAYOUT_KEY)
        if layout not in (None, str(scripts.LAYOUT).encode()):
            raise StoreError(
                f"another version of Unbroken uses it, with layout {bytes(layout)[:20].decode('latin-1')!r} instead of"
                f" {scripts.LAYOUT}; take another database, or wait until nothing is kept there"
            )
        turn_id = f"trial-{secrets.token_hex(8)}"
        keys, info = TurnKeys(turn_id), TurnInfo(id=turn_id)
        fields = (turn_id, msgspec.json.encode(info), "", "", "", self._holder, 1000, 1000, 1000)
        await self._asking.run(scripts.BEGIN, (keys.turn, keys.lease), *fields)
        await self._asking.run(scripts.APPEND, (keys.turn, keys.events), 1, 0, b"trial", 1000)
        await self._reading.call("CLIENT", "ID")
        await self._reading.call("XREAD", "COUNT", 1, "BLOCK", 1, "STREAMS", keys.events, "0-0")
        await self._asking.call("CLIENT", "UNBLOCK", 0)
        trial = (f"{scripts.PREFIX}owner:", keys.turn, keys.events, keys.lease)
        await self._asking.run(scripts.REMOVE, trial, turn_id, "")

    def _note_problem(self, problem: str) -> None:
        changed, self.problem = problem != self.problem, problem
        if changed:
            self._on_problem(problem)

    async def _close_links(self) -> None:
        for link in (self._asking, self._reading, self._writing):
            await link.aclose()


def _state(found: list[Any], turn_id: str) -> TurnState | None:
    """Read what the store says of a turn; ``None`` if that is not what this layout has."""
    info, size, ending, left, unread, is_held, taken = found
    try:
        known = msgspec.json.decode(info, type=TurnInfo)
        state = TurnState(
            info=known,
            size=int(size),
            ending=_ending(ending),
            has_left=left == b"1",
            is_written=bool(ending) or is_held == 1,
            unread=math.inf if unread < 0 else unread / 1000,
            is_taken_over=taken == b"1",
        )
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None
    return state if known.id == turn_id and state.size >= 0 else None


def _part(entries: list[Entry], after: int) -> TurnPart:
    """Read what follows a position: whatever does not follow it without a hole is a cut."""
    data, at = bytearray(), max(after, 0)
    try:
        for name, fields in entries:
            end, kind = (int(number) for number in name.split(b"-"))
            ((field, value),) = fields.items() if isinstance(fields, dict) else zip(*[iter(fields)] * 2, strict=True)
            if after == HEAD:
                return _head(value) if (end, kind, field) == (0, 1, b"h") else CUT
            if (kind, field) == (2, b"d") and 0 <= end - len(value) <= at < end:
                data += value[at - end :]
                at = end
            elif (kind, field) == (3, b"e") and end == at:
                return TurnPart(bytes(data), _ending(value) if not data else "")
            else:
                return TurnPart(bytes(data)) if data else CUT
            if len(data) >= MAX_PART:
                break
    except (ValueError, TypeError, AttributeError, msgspec.MsgspecError):
        return TurnPart(bytes(data)) if data else CUT
    return TurnPart(bytes(data))


def _head(value: bytes) -> TurnPart:
    status, fields = msgspec.json.decode(value, type=tuple[int, list[tuple[str, str]]])
    headers: Headers = tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in fields)
    return TurnPart(status=status, headers=headers)


def _ending(value: bytes) -> Ending:
    text = value.decode("latin-1")
    if text not in ENDINGS:
        raise ValueError(text)
    return text  # type: ignore[return-value]  # checked
