"""The response to a client that comes for a turn that is kept."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import anyio
import msgspec

from unbroken.core.http import Headers
from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.kept.event_ids import EventIds
from unbroken.relay.kept.turn import KeptTurn
from unbroken.relay.recorder import Outcome
from unbroken.relay.store.contract import HEAD, Store, StoreError, TurnPart

WAIT = 2.0
"""Seconds for which one look at the store waits."""

AWAY = 30.0
"""Seconds for which a store that is away is asked again, before the response is broken off."""

_CUT = "the turn was cut, or is kept no more"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110, section 5.6.2
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Abandoned(Exception):
    """A turn was cut, or its relay has died: another turn may answer its client."""


class FoundTurn(msgspec.Struct, frozen=True):
    """A turn that a request is answered with.

    Attributes:
        id: its id.
        is_claimed: whether it was claimed for this request alone.
        is_abandoned: whether its relay has died.
    """

    id: str
    is_claimed: bool
    is_abandoned: bool = False


class Collection:
    """One response with what is kept of a turn, from a position to its end.

    Args:
        turn_id: the turn.
        store: where it is kept.
        incoming: the client's request.
        send: ASGI's ``send``.
        after: the position.
        ids: gives the events ids, ``None`` for none.
        extra: fields that are added to the response.
        local: the turn, if it runs in this process.
        may_take_over: whether a turn whose relay has died may be taken over for this client.
        clock: monotonic seconds.

    Attributes:
        upstream: name of the turn's upstream, ``None`` while it is not known.
        outcome: how the response ended.
        status: the status that was sent, ``None`` before.
        bytes: how many bytes of the body were sent.
        detail: one line for a person.
    """

    def __init__(
        self,
        turn_id: str,
        store: Store,
        incoming: ClientRequest,
        send: asgi.Send,
        *,
        after: int = 0,
        ids: EventIds | None = None,
        extra: Headers = (),
        local: KeptTurn | None = None,
        upstream: str | None = None,
        may_take_over: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstream = upstream
        self.outcome = Outcome.LEFT
        self.status: int | None = None
        self.bytes = 0
        self.detail = ""
        self._id = turn_id
        self._store = store
        self._incoming = incoming
        self._send = send
        self._position = after
        self._ids = ids
        self._extra = extra
        self._local = local
        self._may_take_over = may_take_over
        self._clock = clock

    async def run(self, touch_every: float) -> None:
        """Send the response, until the turn ends or the client goes away.

        Args:
            touch_every: seconds after which the store is told that the turn is still being read.

        Raises:
            asgi.Broken: the turn was cut, or is gone.
            Rejection: the same, where nothing was sent yet.
            Abandoned: the same, or its relay has died, where it may be taken over.
        """
        broken: Exception | None = None
        if self._local:
            self._local.note_reader(1)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._touch, touch_every)
                async with self._incoming.cancelled_by_leaving(lambda: None):
                    try:
                        await self._hand_over()
                    except (asgi.Broken, Rejection, Abandoned) as exc:
                        broken = exc
                    except OSError:
                        pass  # the client has gone (ASGI, "Disconnected client - send exception")
                tasks.cancel_scope.cancel()
        finally:
            if self._local:
                self._local.note_reader(-1)
        if broken:
            raise broken

    async def _hand_over(self) -> None:
        head = await self._next(HEAD)
        self._check(head)
        if head.status is None:
            raise Rejection(502, "turn_cut", "the turn was cut before its response had begun")
        await self._begin(head)
        while True:
            part = await self._next(self._position)
            if part.data:
                await self._put(part.data)
            self._check(part)
            if part.ending:
                break
        if part.ending == "cut":
            self.outcome, self.detail = Outcome.CUT, self.detail or _CUT
            raise asgi.Broken
        await asgi.body(self._send, self._ids.end() if self._ids else b"", more=False)
        self.outcome = Outcome.COLLECTED

    def _check(self, part: TurnPart) -> None:
        """Raise that the turn was cut, where another one may answer instead.

        Raises:
            Abandoned: it was, or its relay has died.
        """
        if self._may_take_over and (part.is_abandoned or part.ending == "cut"):
            self.detail = self.detail or _CUT
            raise Abandoned

    async def _next(self, position: int) -> TurnPart:
        """Wait for what follows a position; for a while, ask a store that is away again."""
        away_since: float | None = None
        while True:
            try:
                part = await self._store.read(self._id, position, WAIT, ends_abandoned=not self._may_take_over)
            except StoreError as exc:
                away_since = self._clock() if away_since is None else away_since
                if self._clock() - away_since > AWAY:
                    self.detail = f"the store cannot be read: {exc}"
                    return TurnPart(ending="cut")
                await anyio.sleep(0.5)
                continue
            away_since = None
            if part is None:
                return TurnPart(ending="cut")
            if not part.is_empty:
                return part

    async def _begin(self, head: TurnPart) -> None:
        status = head.status if head.status is not None and 200 <= head.status < 600 else 502
        kept = [
            (name, _CONTROLS.sub(b" ", value))
            for name, value in head.headers
            if _NAME.fullmatch(name) and name not in (b"content-length", b"transfer-encoding", b"connection")
        ]
        await asgi.start(self._send, status, [*kept, *self._extra])
        self.status = status

    async def _put(self, data: bytes) -> None:
        self._position += len(data)
        if self._ids:
            data = self._ids.feed(data)
        if data:
            await asgi.body(self._send, data)
            self.bytes += len(data)

    async def _touch(self, every: float) -> None:
        """Tell the store that the turn is being read."""
        while True:
            with contextlib.suppress(StoreError):  # reading it fails too, and is tried again
                await self._store.touch(self._id)
            await anyio.sleep(every)
