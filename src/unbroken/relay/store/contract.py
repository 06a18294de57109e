"""The contract between the relay and a store of turns.

A turn's body is one sequence of bytes: those that its first client was sent or would have been, heartbeats included. A
position is an offset in it, so every reader of a turn counts the same bytes.

* Writing never waits: a :class:`TurnWriter` takes what it is given, and whatever fails is reported afterwards.
* A turn has one writer: the holder of its lease. Each lease that is taken has a higher epoch than the one before it,
  and what is written under an older epoch is refused.
* A turn that has ended is deleted ``keep`` seconds after its end, or after it was last read; one whose writer has died
  a few leases later than that.
* A store knows no credential: owners, requests and keys are digests that its user makes.
* What a store returns may have been written by somebody else. It is checked when it is read: a turn with a hole in it
  ends as one that was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec

from unbroken.core.http import Headers
from unbroken.errors import UnbrokenError

HEAD = -1
"""The position before the head of a response; 0 is the one behind it, where the body begins."""

LEASE = 15.0
"""Seconds after which the writer of a turn counts as dead if it does not hold its lease for longer."""

MAX_TURN = 64 * 1024 * 1024
"""How many bytes of a turn are kept; a longer one cannot be collected."""

MAX_PART = 256 * 1024
"""How many bytes one reading returns, at most."""

CLAIM = 30.0
"""Seconds after which a claimed turn that nobody reads can be claimed once more."""

MAX_LISTED = 1000
"""How many turns of one owner are listed, and how many of one request can be claimed: the newest."""

MAX_PUBLISHED = 128 * 1024
"""How many bytes one publication has, at most."""

MAX_PUBLISHERS = 64
"""How many publications are read, at most."""

WATCHED = 10.0
"""Seconds for which publications count as read, once they were."""

Ending: TypeAlias = Literal["", "whole", "ended", "cut"]
"""How a turn ended: ``""`` not yet; ``whole``, with one whole answer; ``ended``, with another whole response, such as
the provider's error; ``cut``, in the middle of its response."""

ENDINGS: frozenset[str] = frozenset({"", "whole", "ended", "cut"})


class StoreError(UnbrokenError):
    """The store cannot be used: it is away, full, or not what it should be. The message quotes no credentials."""


class TurnInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a turn when it begins. Digests are hexadecimal, and ``""`` where there is none.

    Attributes:
        id: its unguessable id.
        owner: digest of the credential that asked.
        request: digest of the owner and of the request, by which another client may claim the turn.
        key: digest of the owner and of the key under which several clients may read it.
        method: method of the request.
        path: path of the request, without its query.
        upstream: name of the upstream.
        dialect: name of the dialect.
        started: seconds since the epoch.
    """

    id: str
    owner: str = ""
    request: str = ""
    key: str = ""
    method: str = "POST"
    path: str = ""
    upstream: str = ""
    dialect: str = ""
    started: float = 0.0


class TurnState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a turn now.

    Attributes:
        info: what was known when it began.
        size: how many bytes of its body have come.
        ending: how it ended.
        has_left: whether its client went away before its end.
        is_written: whether it has ended, or somebody holds its lease.
        unread: seconds since it was last read; infinite if it was not.
        is_taken_over: whether it was cut as its writer had died, and another turn is to go on with it.
    """

    info: TurnInfo
    size: int
    ending: Ending
    has_left: bool
    is_written: bool
    unread: float
    is_taken_over: bool = False


class TurnPart(msgspec.Struct, frozen=True):
    """What follows a position of a turn.

    Attributes:
        data: bytes of the body.
        ending: how the turn ended, once there are no further bytes.
        status: the response's status, where the head was read; otherwise ``None``.
        headers: its fields.
        is_abandoned: whether its writer has died, and nobody has ended it.
    """

    data: bytes = b""
    ending: Ending = ""
    status: int | None = None
    headers: Headers = ()
    is_abandoned: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come."""
        return not (self.data or self.ending or self.is_abandoned or self.status is not None)


CUT = TurnPart(ending="cut")
ABANDONED = TurnPart(is_abandoned=True)


class TurnWriter(Protocol):
    """The writer of one turn. Nothing of it waits, or raises."""

    @property
    def lost(self) -> str:
        """Why the turn cannot be collected, for a person; ``""`` if it can, as far as is known."""

    @property
    def is_superseded(self) -> bool:
        """Whether that is because somebody else has taken its lease: the turn is no longer this writer's to go on."""

    @property
    def is_removed(self) -> bool:
        """Whether that is because the turn was deleted by :meth:`Store.remove`: it is to end, for its client too."""

    def head(self, status: int, headers: Headers) -> None:
        """Write the head of the response."""

    def append(self, data: bytes) -> None:
        """Write bytes of its body."""

    def leave(self) -> None:
        """Write that its client has gone: from now on another one may claim it."""

    def close(self, ending: Ending) -> None:
        """Write how it ended. Nothing is written after that."""

    def hand_over(self) -> None:
        """Give up the lease: it is as if the writer had died. Nothing is written after that."""


class Store(Protocol):
    """A store of turns.

    Attributes:
        problem: why it does not take what is written, for a person; ``""`` while it does.
        outlives_relay: whether turns can be read once this process has ended.
    """

    problem: str
    outlives_relay: bool

    async def open(self, *, was_there: bool = False) -> None:
        """Begin, in the event loop that uses it.

        Args:
            was_there: whether it was found to be in order lately: if it is away now, it is used once it is back.

        Raises:
            StoreError: it cannot be used.
        """

    async def aclose(self) -> None:
        """Write what is still to be written, as far as that is possible at once, and end."""

    def begin(self, info: TurnInfo, on_lost: Callable[[], None]) -> TurnWriter:
        """Take the lease of a new turn.

        Args:
            info: what is known of it.
            on_lost: called once its writer has :attr:`TurnWriter.lost`.
        """

    async def read(self, turn_id: str, after: int, wait: float, *, ends_abandoned: bool = True) -> TurnPart | None:
        """Return what follows a position, as far as it has come; an empty part if nothing comes in time.

        Args:
            turn_id: the turn.
            after: the position, :data:`HEAD` for the head.
            wait: seconds that may be waited.
            ends_abandoned: whether a turn whose writer has died is ended as one that was cut; otherwise the part says
                that it has.

        Returns:
            ``None`` if there is no such turn, or no more.

        Raises:
            StoreError: the store cannot be read.
        """

    async def find(self, turn_id: str) -> TurnState | None:
        """Return what is known of a turn; ``None`` if there is no such turn. Raises as :meth:`read`."""

    async def keyed(self, key: str) -> TurnState | None:
        """Return the turn that was last begun under a key, as :meth:`find`."""

    async def claim(self, request: str) -> str | None:
        """Claim a turn of this request: its client has gone before its end, and it runs or has ended whole.

        So may one whose writer has died, also where it is not known that its client has gone.

        Returns:
            Its id, ``None`` if there is none. Nobody else claims it until it is given back by :meth:`release`, or was
            neither read nor :meth:`collected` for :data:`CLAIM` seconds: the relay that claimed it has died.

        Raises:
            StoreError: the store cannot be read.
        """

    def was_abandoned(self, turn_id: str) -> bool:
        """Return whether the writer of a turn had died when it was claimed here. Ask once, behind the claim."""

    async def release(self, turn_id: str) -> None:
        """Give back a claimed turn: its new client has gone too. Raises as :meth:`read`."""

    async def collected(self, turn_id: str) -> None:
        """Note that whoever claimed a turn has all of it: nobody claims it any more. Raises as :meth:`read`."""

    async def touch(self, turn_id: str) -> None:
        """Note that a turn is being read: it is not to be deleted, nor ended. Raises as :meth:`read`."""

    async def turns(self, owner: str) -> list[TurnState]:
        """Return the turns of an owner, newest first. Raises as :meth:`read`."""

    async def remove(self, turn_id: str) -> None:
        """Delete a turn. Its writer, if it has one, is told that it is lost. Raises as :meth:`read`."""

    async def lease(self, turn_id: str, holder: str, seconds: float) -> int | None:
        """Take the lease of a turn, or hold it for longer.

        Returns:
            Its epoch; ``None`` if somebody else holds it, or if there is no such turn, or it has ended.

        Raises:
            StoreError: the store cannot be used.
        """

    async def watched(self) -> bool:
        """Return whether somebody has read what is published lately. Raises as :meth:`read`."""

    async def publish(self, name: str, data: bytes, seconds: float) -> None:
        """Show something to all that use the store, for so many seconds. Raises as :meth:`read`.

        Args:
            name: whose it is; it replaces what was published under this name.
            data: at most :data:`MAX_PUBLISHED` bytes.
            seconds: how long it is shown.
        """

    async def published(self) -> list[bytes]:
        """Return what is shown by all that use the store, in no order. Raises as :meth:`read`."""

    async def cut(self, turn_id: str, epoch: int, *, is_taken_over: bool = False) -> bool:
        """End a turn whose writer has died, under the epoch of a lease; return whether that was not refused.

        Args:
            turn_id: the turn.
            epoch: the epoch.
            is_taken_over: whether another turn is to go on with it.
        """
