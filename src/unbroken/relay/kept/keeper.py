"""The keeper of turns: which are kept, who may collect them, and how."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Literal, Self, TypeAlias

import anyio
from anyio.abc import TaskGroup

from unbroken.core.dialect import Call
from unbroken.core.http import Headers, Request
from unbroken.core.policy import Policy
from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.kept.collection import Abandoned, Collection, FoundTurn
from unbroken.relay.kept.event_ids import EventIds, wants_ids
from unbroken.relay.kept.identity import Identity, identify
from unbroken.relay.kept.joined import JoinedResponse
from unbroken.relay.kept.own_turns import OwnTurns
from unbroken.relay.kept.succession import Succession, claim, succeed
from unbroken.relay.kept.turn import KeptTurn
from unbroken.relay.kept.worth import TAIL, Worth, worth_of
from unbroken.relay.recorder import OpenRequest, Outcome
from unbroken.relay.settings import Settings
from unbroken.relay.store import make_store
from unbroken.relay.store.contract import Store, StoreError, TurnInfo, TurnState
from unbroken.relay.turns import RelayedTurn
from unbroken.relay.watchdog import WatchedSend

ASK_WITHIN = 2.0
"""Seconds for which a request waits for the store to say whether its turn is there; then it goes upstream."""

SUCCESSOR_WITHIN = 1.0
"""Seconds for which another request of a key is waited for, to go on with a turn that was cut."""

SETTLE = 0.25
"""Seconds for which a claim is repeated where it is known that the turn's client has just gone."""

TOUCH_EVERY = 5.0
"""Longest interval, in seconds, at which a turn that is being read has its expiry in the store put off."""

KeptEvent: TypeAlias = Literal["kept", "collected", "dropped"]
"""What became of a turn whose client had gone: it went on or is there in whole; a client came for it; none did."""

_SUPERSEDED = "this relay did not hold the turn's lease in time, and another one has taken the turn"

_MARGIN = 0.5
"""Seconds after which a turn that was not read is no longer in the store."""


class Keeper:
    """Keeps the turns of one relay.

    Args:
        settings: the relay's.
        on_event: called with what became of a turn whose client had gone, and with how much it is worth.
        on_problem: called with what is wrong with the store, for a person, and with ``""`` once nothing is.
        store: replaces the store of the settings.

    Attributes:
        own_turns: answers requests for the turns of the credential that asks.
    """

    def __init__(
        self,
        settings: Settings,
        on_event: Callable[[KeptEvent, Worth], None],
        on_problem: Callable[[str], None],
        store: Store | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._store = store or make_store(settings.store, settings.keep, settings.max_kept, on_problem, settings.lease)
        self._running: dict[str, KeptTurn] = {}
        self._keyed: dict[str, str] = {}  # ids of running turns, by the digests of their keys
        self._awaited: deque[tuple[float, str, Worth]] = deque()  # when each is due, its id, its worth
        self._tasks: TaskGroup | None = None
        self.own_turns = OwnTurns(settings, self._store, self._running, self.collect)

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    async def __aenter__(self) -> Self:
        await self._store.open(was_there=self._settings.store_was_there)
        self._has_awaited = anyio.Event()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._count_dropped)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tasks:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(kind, error, traceback)
        await self._store.aclose()

    def stop(self) -> None:
        """Handle that the relay stops: turns that nobody reads, and that nobody could collect later, are ended."""
        if not self._store.outlives_relay:
            for turn in self._running.values():
                turn.end_alone()

    # Turns

    def identify(self, incoming: ClientRequest, upstream: str, outgoing: Request, call: Call) -> Identity:
        """Return who asks, and what."""
        return identify(incoming, self._settings, upstream, outgoing, call)

    async def find(self, identity: Identity) -> FoundTurn | None:
        """Return the turn that a request is to be answered with; ``None`` if it is to go upstream.

        Raises:
            Rejection: 409, its key stands for another request.
        """
        if not identity.owner:
            return None
        with anyio.move_on_after(ASK_WITHIN):
            try:
                if identity.key and (keyed := await self._find_keyed(identity)):
                    return keyed
                may_claim = identity.is_retry or self._settings.attach_identical
                if may_claim and (claimed := await self._claim(identity.request)):
                    is_abandoned = self._store.was_abandoned(claimed)
                    return FoundTurn(claimed, is_claimed=True, is_abandoned=is_abandoned)
            except StoreError:
                return None  # it is no reason to fail a request
        return None

    @asynccontextmanager
    async def keeping(
        self,
        incoming: ClientRequest,
        send: WatchedSend,
        turn_name: str,
        identity: Identity,
        upstream: str,
        call: Call,
        response: JoinedResponse | None = None,
    ) -> AsyncGenerator[KeptTurn]:
        """Keep a turn while this is entered, and afterwards for a while.

        Args:
            incoming: the client's request.
            send: to the client.
            turn_name: the turn's name in logs, with which its id begins.
            identity: who asks, and what.
            upstream: name of the upstream.
            call: the generation call.
            response: what is sent goes through it, ``None`` for nothing.
        """
        info = TurnInfo(
            id=f"{turn_name}-{secrets.token_urlsafe(18)}",
            owner=identity.owner,
            request=identity.request,
            key=identity.key,
            method=incoming.method,
            path=incoming.path[:500],
            upstream=upstream,
            dialect=call.dialect.name,
            started=time.time(),
        )
        ids = EventIds() if call.streaming and wants_ids(incoming) else None
        turn = KeptTurn(
            info,
            self._store,
            incoming,
            response or send,
            keep=self._settings.keep,
            ids=ids,
            direct=response is None,
            on_left=self._note_left,
        )
        self._running[turn.id] = turn
        if info.key:
            self._keyed[info.key] = turn.id
        send.on_timeout = turn.abandon
        try:
            yield turn
        finally:
            turn.closed.set()
            send.on_timeout = None
            del self._running[turn.id]
            if self._keyed.get(info.key) == turn.id:
                del self._keyed[info.key]

    def close(self, kept: KeptTurn, turn: RelayedTurn | None) -> None:
        """Write how a turn ended. An answer that no client has taken yet is not an answered turn.

        Args:
            kept: what is kept of it.
            turn: the turn, ``None`` if it has not begun.
        """
        is_answer = turn is not None and turn.outcome is Outcome.ANSWERED
        kept.close(is_answer=is_answer)
        if turn and turn.outcome is Outcome.LEFT and kept.is_superseded:
            turn.outcome, turn.detail = Outcome.CUT, _SUPERSEDED
        if turn and is_answer and kept.is_awaiting:
            turn.outcome = Outcome.KEPT
        if kept.is_awaiting:
            self._awaited.append((time.monotonic() + self._settings.keep + _MARGIN, kept.id, kept.worth))
            self._has_awaited.set()

    def fields(self, turn: KeptTurn) -> Headers:
        """Return the fields that tell a client how long a turn is kept."""
        return ((b"x-unbroken-keep", f"{self._settings.keep:g}".encode()),) if not turn.lost else ()

    # Collecting

    async def answer(
        self,
        found: FoundTurn,
        identity: Identity,
        call: Call,
        policy: Policy,
        incoming: ClientRequest,
        response: JoinedResponse,
        request: OpenRequest,
        upstream: str,
        extra: Headers,
    ) -> Succession | None:
        """Answer a request with a turn that is kept. If that was cut, return what a turn of its own goes on from.

        Args:
            found: the turn.
            identity: who asks, and what.
            call: the generation call.
            policy: the limits of its turn.
            incoming: the request.
            response: the response to it.
            request: the record of the request.
            upstream: name of the upstream.
            extra: fields that are added to the response.

        Returns:
            ``None`` if it was answered.

        Raises:
            asgi.Broken: the turn was cut.
            Rejection: the same, where nothing was sent yet.
        """
        while True:
            with contextlib.suppress(Abandoned):
                if not found.is_abandoned:
                    await self.collect(found, upstream, incoming, response, request, extra, may_take_over=True)
                    return None
            succession, other = None, None
            with contextlib.suppress(StoreError):
                if await claim(self._store, found.id):
                    succession = await succeed(self._store, found.id, response, call, policy)
                elif identity.key:
                    other = await self._find_successor(identity, found.id)
            if other is None:
                return succession or self._begin_anew(found, response, request)
            response.repeat()
            found = other

    def _begin_anew(self, found: FoundTurn, response: JoinedResponse, request: OpenRequest) -> Succession:
        """Have the request ask upstream, as nothing can follow what is stored; unless some of that was sent.

        Raises:
            asgi.Broken: some was sent.
        """
        if response.status is not None:
            request.cut()
            raise asgi.Broken
        return Succession(found.id, self._store, response, has_spoken=False)

    async def _find_successor(self, identity: Identity, lost: str) -> FoundTurn | None:
        """Return the turn in which another request of the same key goes on with a turn whose relay has died."""
        with anyio.move_on_after(SUCCESSOR_WITHIN):
            while True:
                found = await self._find_keyed(identity, waits=False)
                if found and found.id != lost:
                    return found
                await anyio.sleep(SETTLE / 10)
        return None

    async def collect(
        self,
        found: FoundTurn,
        upstream: str,
        incoming: ClientRequest,
        send: asgi.Send,
        request: OpenRequest,
        extra: Headers,
        after: int = 0,
        *,
        may_take_over: bool = False,
    ) -> None:
        """Answer a request with what is kept of a turn, from a position.

        Args:
            found: the turn.
            upstream: name of its upstream.
            incoming: the request.
            send: ASGI's ``send``.
            request: the record of the request.
            extra: fields that are added to the response.
            after: the position.
            may_take_over: whether the turn may be taken over if its relay has died.

        Raises:
            asgi.Broken: the turn was cut.
            Rejection: the same, where nothing was sent yet.
            Abandoned: the same, or its relay has died, where it may be taken over.
        """
        collection = Collection(
            found.id,
            self._store,
            incoming,
            send,
            after=after,
            ids=EventIds(after) if wants_ids(incoming) else None,
            extra=extra,
            local=self._running.get(found.id),
            upstream=upstream,
            may_take_over=may_take_over,
        )
        request.passthrough, request.is_recorded = collection, True
        try:
            await collection.run(min(TOUCH_EVERY, self._settings.keep / 3))
        finally:
            is_collected = collection.outcome is Outcome.COLLECTED
            if found.is_claimed:
                with anyio.move_on_after(ASK_WITHIN, shield=True), contextlib.suppress(StoreError):
                    await (self._store.collected if is_collected else self._store.release)(found.id)
            if is_collected:
                self._on_event("collected", await self._worth_of(found.id, collection.bytes))

    async def _find_keyed(self, identity: Identity, *, waits: bool = True) -> FoundTurn | None:
        """Return the turn of a key; wait for the one that takes over from it, if its relay has died."""
        local = self._local(identity)
        if local and local.is_ending:
            await local.closed.wait()
            is_whole = local.ending == "whole" and not local.lost
            return FoundTurn(local.id, is_claimed=False) if is_whole else None
        state = None if local else await self._store.keyed(identity.key)
        if local := local or self._local(identity):  # it may have begun meanwhile
            return None if local.lost else FoundTurn(local.id, is_claimed=False)
        if state is None:
            return None
        _check_same(state.info, identity)
        if state.is_taken_over and waits:
            return await self._find_successor(identity, state.info.id)
        found = FoundTurn(state.info.id, is_claimed=False, is_abandoned=not state.is_written)
        return found if state.ending in ("", "whole") else None

    def _local(self, identity: Identity) -> KeptTurn | None:
        """Return the running turn of the same key, if it runs here."""
        turn = self._running.get(self._keyed.get(identity.key, ""))
        if turn:
            _check_same(turn.info, identity)
        return turn

    async def _claim(self, request: str) -> str | None:
        gone = [turn for turn in self._running.values() if turn.info.request == request and turn.client_has_left]
        until = anyio.current_time() + SETTLE
        while True:
            found = await self._store.claim(request)  # never given up: it may be claimed before the answer has come
            if found or anyio.current_time() > until or not any(turn.is_awaiting for turn in gone):
                return found
            await anyio.sleep(SETTLE / 10)

    async def _known(self, turn_id: str) -> TurnState | None:
        with anyio.move_on_after(ASK_WITHIN):
            try:
                return await self._store.find(turn_id)
            except StoreError:
                return None
        return None

    async def _worth_of(self, turn_id: str, size: int) -> Worth:
        """Return what a turn is worth that was collected, of which so many bytes were sent."""
        with anyio.move_on_after(ASK_WITHIN, shield=True):
            try:
                state = await self._store.find(turn_id)
                if state and state.ending == "whole":
                    part = await self._store.read(turn_id, max(0, state.size - TAIL), ASK_WITHIN)
                    return worth_of(size, state.info.dialect, part.data if part else b"")
            except StoreError:
                return worth_of(size)
        return worth_of(size)

    def _note_left(self, turn: KeptTurn) -> None:
        if not turn.lost:
            self._on_event("kept", turn.worth)

    async def _count_dropped(self) -> None:
        """Count the turns that nobody has come for in time. All have the same time: the first is due first."""
        while True:
            await self._has_awaited.wait()
            while self._awaited:
                due, turn_id, worth = self._awaited[0]
                await anyio.sleep(max(0.0, due - time.monotonic()))
                self._awaited.popleft()
                if await self._known(turn_id) is None:  # what somebody came for is kept for longer
                    self._on_event("dropped", worth)
            self._has_awaited = anyio.Event()


def _check_same(info: TurnInfo, identity: Identity) -> None:
    if not secrets.compare_digest(info.request, identity.request):
        raise Rejection(409, "idempotency_key", "this key was used for another request")
