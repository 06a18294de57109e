"""Turns whose relay has died: taken over, once, by the relay at which their client asks for them again.

What is stored of such a turn is handed to a new turn as what came of its first attempt, which was then cut. So the new
one does about it whatever it does about a cut: it resumes or continues as its policy says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec

from unbroken.core.actions import Limits
from unbroken.core.dialect import Call, Dialect
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.policy import Policy
from unbroken.core.route import RouteRecord
from unbroken.errors import WireError
from unbroken.relay.kept.joined import JoinedResponse
from unbroken.relay.recorder import Outcome
from unbroken.relay.reply import Reply, are_heartbeats
from unbroken.relay.store.contract import CUT, HEAD, Store, StoreError, TurnPart

if TYPE_CHECKING:
    from unbroken.relay.turns import RelayedTurn
    from unbroken.wire.contract import AsyncExchange, AsyncWire

CLAIM = 30.0
"""Seconds for which a turn is held by the relay that ends it, to take it over; only a store that is slow needs them."""

MOST_HEARTBEATS = 64 * 1024
"""A longer body cannot be heartbeats alone."""

TRIES, WAIT = 3, 2.0
"""How often the store is asked for a part of a turn that is there, and for how many seconds each time."""

_GONE = "the relay that had the turn is gone"


class Succession:
    """What a turn takes over from one whose relay has died.

    Args:
        turn_id: the turn whose relay has died.
        store: where it is kept.
        response: the response to the client that has asked for it.
        has_spoken: whether the new turn goes on behind what is stored; otherwise it begins anew.
    """

    def __init__(self, turn_id: str, store: Store, response: JoinedResponse, *, has_spoken: bool) -> None:
        self.response = response
        self.has_spoken = has_spoken
        self._id = turn_id
        self._store = store

    async def begin(self, reply: Reply, goes_on: Callable[[], bool]) -> None:
        """Have the new turn's reply follow what its client has.

        Nothing is sent of a turn that may turn out not to go on, so that another one can answer then.

        Args:
            reply: the reply of the new turn.
            goes_on: whether the new turn has done something about the cut.
        """
        if self.has_spoken:
            self.response.repeat()
            self.response.withhold(goes_on)
        elif self.response.status is not None:
            self.response.go_on()
            await reply.heartbeat()  # its own head was sent, by the other relay too

    def is_without_effect(self, turn: RelayedTurn | None) -> bool:
        """Return whether the new turn has failed before its client was sent anything of it."""
        return turn is not None and turn.outcome is not Outcome.LEFT and self.response.is_withheld

    def without_what_is_stored(self) -> Succession:
        """Return another one, for a turn that begins anew."""
        self.response.drop_withheld()
        return Succession(self._id, self._store, self.response, has_spoken=False)

    def policy(self, policy: Policy) -> Policy:
        """Return the limits of the new turn: what the client of the dead one was sent cannot be held any more."""
        return dataclasses.replace(policy, hold="prelude") if self.has_spoken else policy

    def call(self, call: Call) -> Call:
        """Return the new turn's call: its request is a retry, but not the attempt that goes on."""
        return msgspec.structs.replace(call, single_attempt=False) if self.has_spoken else call

    def wire(self, wire: AsyncWire) -> AsyncWire:
        """Return a wire whose first exchange brings what is stored."""
        return _SucceedingWire(wire, StoredExchange(self._id, self._store)) if self.has_spoken else wire


async def claim(store: Store, turn_id: str) -> bool:
    """Claim a turn whose writer has died, and end it: readers of it are told that it was cut.

    Returns:
        False if somebody else has claimed it, or it has ended.

    Raises:
        StoreError: the store cannot be used.
    """
    epoch = await store.lease(turn_id, secrets.token_hex(8), CLAIM)
    return epoch is not None and await store.cut(turn_id, epoch, is_taken_over=True)


async def succeed(
    store: Store, turn_id: str, response: JoinedResponse, call: Call, policy: Policy
) -> Succession | None:
    """Return what a turn takes over from one that was claimed.

    Args:
        store: where it is kept.
        turn_id: the turn.
        response: the response to the client that has asked for it.
        call: its call.
        policy: the limits of its turn.

    Returns:
        ``None`` if nothing can follow what the client was sent of it.

    Raises:
        StoreError: the store cannot be used.
    """
    if await _is_silent(store, turn_id, call.dialect):
        is_answerable = response.status in (None, 200)
        return Succession(turn_id, store, response, has_spoken=False) if is_answerable else None
    if can_go_on(call, policy):
        return Succession(turn_id, store, response, has_spoken=True)
    return Succession(turn_id, store, response, has_spoken=False) if response.status is None else None


def can_go_on(call: Call, policy: Policy) -> bool:
    """Return whether a turn that has spoken may be resumed or continued, by its policy and its dialect."""
    if not call.streaming:
        return False
    resumption = call.dialect.resumption()
    if resumption and (call.generation.resumable or (policy.background and resumption.background)):
        return True
    return policy.after_output == "continue" and call.dialect.continuation() is not None


async def _is_silent(store: Store, turn_id: str, dialect: Dialect) -> bool:
    """Return whether nothing but heartbeats is stored of a turn that has ended."""
    body = bytearray()
    while len(body) < MOST_HEARTBEATS and (data := (await _stored(store, turn_id, len(body))).data):
        body += data
    return are_heartbeats(dialect, bytes(body))


async def _stored(store: Store, turn_id: str, after: int) -> TurnPart:
    """Return what follows a position of a turn that has ended.

    Raises:
        StoreError: the store cannot be read.
    """
    for _ in range(TRIES):
        part = await store.read(turn_id, after, WAIT)
        if part is None or not part.is_empty:
            return part or CUT
    return CUT


class _SucceedingWire:
    """A wire whose first exchange is given.

    Args:
        wire: the wire of all others.
        first: the first one.
    """

    def __init__(self, wire: AsyncWire, first: AsyncExchange) -> None:
        self._wire = wire
        self._first: AsyncExchange | None = first

    def paths(self, request: Request) -> Paths:
        """As the contract says."""
        return self._wire.paths(request)

    def prefer(self, request: Request, path: int) -> None:
        """As the contract says."""
        self._wire.prefer(request, path)

    def exchange(self, request: Request, path: int | None = None) -> AsyncExchange:
        """As the contract says."""
        first, self._first = self._first, None
        return first or self._wire.exchange(request, path)

    async def aclose(self) -> None:
        """Close nothing: the wire is others' too."""


class StoredPath:
    """The state of a connection that there is none of."""

    round_trip: float | None = None
    sent = True
    received = 0
    record = RouteRecord()

    def unanswered(self, now: float) -> float | None:  # noqa: ARG002 - the contract's
        """As the contract says."""
        return None

    def silent(self, now: float) -> float:  # noqa: ARG002 - the contract's
        """As the contract says."""
        return 0.0


class StoredExchange:
    """An exchange that brings what is stored of a turn that has ended, and then fails: it was cut.

    Args:
        turn_id: the turn.
        store: where it is kept.
    """

    def __init__(self, turn_id: str, store: Store) -> None:
        self.path = StoredPath()
        self._id = turn_id
        self._store = store
        self._at = HEAD

    async def send(self, limits: Limits) -> Head:  # noqa: ARG002 - the contract's
        """Return the stored head."""
        part = await self._next()
        if part.status is None:
            raise WireError(Failure.CLOSED, _GONE)
        self._at = 0
        return Head(part.status, part.headers)

    async def read(self, limits: Limits) -> bytes:  # noqa: ARG002 - the contract's
        """Return the next stored bytes."""
        data = (await self._next()).data
        if not data:
            raise WireError(Failure.CLOSED, _GONE)
        self._at += len(data)
        return data

    def lower_ping(self, interval: float) -> None:
        """As the contract says."""

    async def aclose(self) -> None:
        """As the contract says."""

    async def _next(self) -> TurnPart:
        for _ in range(TRIES):
            with contextlib.suppress(StoreError):
                return await _stored(self._store, self._id, self._at)
            await anyio.sleep(0.5)
        return CUT
