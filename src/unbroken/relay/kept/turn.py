"""A turn that is kept: what its client is sent goes to a store too, and the turn goes on once the client is gone."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest
from unbroken.relay.headers import lowered
from unbroken.relay.kept.event_ids import EventIds
from unbroken.relay.kept.worth import TAIL, Worth, worth_of
from unbroken.relay.store.contract import Ending, Store, StoreError, TurnInfo

_OF_ONE_CLIENT = (b"access-control-", b"vary")
"""Beginnings of fields of a response that concern the client that asked, and no other one."""

_ONE_LOOK = 5.0
"""Seconds within which the store must say whether a turn is being read."""


class KeptTurn:
    """The client's side of a turn, below its reply: what is sent is written to the store, and then to the client.

    Args:
        info: what is known of the turn.
        store: where it is kept.
        incoming: the client's request.
        send: ASGI's, to the client.
        keep: seconds for which it goes on after its client has gone, or was last read.
        ids: gives the client's events ids, ``None`` for none.
        direct: whether bytes may pass ``send`` by, where the server offers that.
        on_left: called when the client goes away before the end.
        clock: monotonic seconds.

    Attributes:
        id: its unguessable id.
        info: what is known of it.
        size: how many bytes of its body have come.
        is_detached: whether its client is gone.
        closed: set once it has ended.
        ending: how it ended.
        readers: how many other clients read it now, here.
        was_collected: whether another client has come for it.
        goes_on: whether another relay may resume or continue it.
    """

    def __init__(
        self,
        info: TurnInfo,
        store: Store,
        incoming: ClientRequest,
        send: asgi.Send,
        *,
        keep: float,
        ids: EventIds | None = None,
        direct: bool = True,
        on_left: Callable[[KeptTurn], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = info.id
        self.info = info
        self.size = 0
        self.is_detached = False
        self.closed = anyio.Event()
        self.ending: Ending = ""
        self.readers = 0
        self.was_collected = False
        self.goes_on = False
        self._store = store
        self._incoming = incoming
        self._send = send
        self._keep = keep
        self._ids = ids
        self._on_left = on_left
        self._clock = clock
        self._left = anyio.Event()
        self._unwanted = anyio.Event()
        self._sending: anyio.CancelScope | None = None
        self._is_complete = False
        self._status = 0
        self._is_removed = False
        self._is_left = False
        self._read_at = 0.0
        self._tail = bytearray()  # of what has come since its client has gone
        self._is_begun = False
        self._log = store.begin(info, self._lose)
        self._is_begun = True
        client_writer = incoming.writer if direct else None
        self.writer = KeptWriter(self, client_writer, ids) if client_writer else None
        """Writes the response without waiting, ``None`` where that is not possible."""

    @property
    def lost(self) -> str:
        """Why it cannot be collected, for a person; ``""`` if it can."""
        return self._log.lost

    @property
    def outlives_relay(self) -> bool:
        """Whether other relays can read it."""
        return self._store.outlives_relay

    @property
    def is_superseded(self) -> bool:
        """Whether another relay has taken it, because this one did not hold its lease: it has ended here."""
        return self._log.is_superseded

    @property
    def is_ending(self) -> bool:
        """Whether it is about to end, or to fail."""
        return self._is_complete or self._status >= 400

    @property
    def client_has_left(self) -> bool:
        """Whether its client is gone, also where that has not been told yet."""
        if not self.is_detached and self._incoming.has_left:
            self._left.set()
            self._detach(had_all=False)
        return self.is_detached

    @property
    def is_awaiting(self) -> bool:
        """Whether its client has gone before its end, and nobody has come for it yet."""
        return self._is_left and not self.was_collected and not self.lost

    @property
    def worth(self) -> Worth:
        """How much it is worth, as far as it has come."""
        is_whole = self.ending == "whole"
        return worth_of(self.size, self.info.dialect if is_whole else "", bytes(self._tail))

    async def send(self, message: asgi.Message) -> None:
        """Take a message of the response: ASGI's ``send`` of the reply."""
        if message["type"] == "http.response.start":
            fields = [field for field in lowered(message["headers"]) if not field[0].startswith(_OF_ONE_CLIENT)]
            self._status = message["status"]
            self._log.head(self._status, tuple(fields))
        else:
            self.write(message["body"])
            self._is_complete = not message.get("more_body", False)
        if not self.is_detached:
            await self._send_to_client(message)

    def write(self, data: bytes) -> None:
        """Write bytes of the body to the store."""
        self.size += len(data)
        self._log.append(data)
        if self.is_detached:
            self._tail += data
            if len(self._tail) > 2 * TAIL:
                del self._tail[:-TAIL]

    def abandon(self) -> None:
        """Take the client for gone: it accepts nothing."""
        self._incoming.abort()
        self._left.set()
        if not self.is_detached:
            self._detach(had_all=False)
        if self._sending:
            self._sending.cancel()

    def remove(self) -> None:
        """End the turn now, and the response to its client too."""
        self._is_removed = True
        self._left.set()
        self._unwanted.set()

    def end_alone(self) -> None:
        """End the turn once nobody is there any more, however long it would be kept."""
        self._unwanted.set()

    def close(self, *, is_answer: bool) -> None:
        """Write how the turn ended.

        Args:
            is_answer: whether that was with one whole answer.
        """
        self.ending = "cut"
        if self._is_complete:
            self.ending = "whole" if is_answer else "ended"
        self._log.close(self.ending)
        self.closed.set()

    def hand_over(self, *, has_spoken: bool) -> bool:
        """Leave the turn, as this relay ends, to the one at which its client asks again; return whether it is left.

        Args:
            has_spoken: whether more than heartbeats was written of it.
        """
        is_found = self.outlives_relay and bool(self.info.owner) and not self.lost
        if not is_found or self.is_ending or (has_spoken and not self.goes_on):
            return False
        self._log.hand_over()
        return True

    def note_reader(self, change: int) -> None:
        """Count a client that begins to read the turn (1), or no longer does (-1)."""
        self.readers += change
        self._read_at = self._clock()
        self.was_collected = True

    @asynccontextmanager
    async def cancelled_once_unwanted(self, on_left: Callable[[], bool]) -> AsyncGenerator[None]:
        """Cancel what is entered here when the client has gone, and nobody came for the turn in time.

        Args:
            on_left: called when the client has gone; says whether it had the whole answer.

        Raises:
            asgi.Broken: the turn was removed.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wait_for_client)
            tasks.start_soon(self._outlive_client, on_left, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()
        if self._is_removed and not self._is_complete:
            raise asgi.Broken

    async def _wait_for_client(self) -> None:
        await self._incoming.left()
        self._left.set()

    async def _outlive_client(self, on_left: Callable[[], bool], scope: anyio.CancelScope) -> None:
        await self._left.wait()
        had_all = on_left()
        if not self.is_detached:
            self._detach(had_all=had_all)
        self._read_at = max(self._read_at, self._clock())
        while not self.lost and (rest := await self._rest()) > 0:
            with anyio.move_on_after(rest):
                await self._unwanted.wait()
            if self._unwanted.is_set() and (self._is_removed or not self.readers):
                break
        scope.cancel()

    async def _rest(self) -> float:
        """Return the seconds for which the turn goes on if nobody comes."""
        if self.readers:
            return self._keep
        rest = self._read_at + self._keep - self._clock()
        if rest > 0 or not self._store.outlives_relay:
            return rest
        with anyio.move_on_after(_ONE_LOOK):  # another process may read it
            try:
                state = await self._store.find(self.id)
            except StoreError:
                return rest
            return self._keep - state.unread if state else rest
        return rest

    def _detach(self, *, had_all: bool) -> None:
        self.is_detached = True
        self._read_at = self._clock()
        if not had_all:
            self._is_left = True
            self._log.leave()
            self._on_left(self)

    def _lose(self) -> None:
        """Handle that the turn cannot be collected: without a client nobody waits for it.

        One that another relay has taken ends for its client too, who may have come back there already; so does one that
        was deleted.
        """
        self._unwanted.set()
        if self._is_begun and (self.is_superseded or self._log.is_removed):
            self.remove()

    async def _send_to_client(self, message: asgi.Message) -> None:
        if self._ids and message["type"] == "http.response.body":
            data = self._ids.feed(message["body"])
            if not message.get("more_body", False):
                data += self._ids.end()
            elif not data:
                return
            message = {**message, "body": data}
        with anyio.CancelScope() as self._sending:
            try:
                await self._send(message)
            except OSError:
                self._left.set()  # ASGI: "Disconnected client - send exception"
            except asgi.Broken:
                self.abandon()
        self._sending = None


class KeptWriter:
    """Writes without waiting: to the store, and to the client while it is there.

    Args:
        turn: the turn.
        client: the client's.
        ids: gives the client's events ids.
    """

    def __init__(self, turn: KeptTurn, client: asgi.Writer, ids: EventIds | None) -> None:
        self._turn = turn
        self._client = client
        self._ids = ids

    @property
    def ready(self) -> bool:
        """As the client's; without a client always."""
        return self._turn.is_detached or self._client.ready

    def write(self, data: bytes) -> None:
        """As the client's."""
        self._turn.write(data)
        if self._turn.is_detached:
            return
        if self._ids:
            data = self._ids.feed(data)
        if data:
            self._client.write(data)
