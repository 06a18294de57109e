"""The actions that a turn asks of its driver, and the event for its observer, as plain data."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.report import AttemptReport
from unbroken.errors import TurnError


class CallerTimeouts(msgspec.Struct, frozen=True):
    """The caller's own timeouts, such as httpx's. One that expires is raised, never replayed.

    Attributes:
        connect: seconds until the connection must be established.
        read: seconds without a byte of the response; answers to PING do not count.
        write: seconds without a byte of the request being accepted.
    """

    connect: float | None = None
    read: float | None = None
    write: float | None = None


class Limits(msgspec.Struct, frozen=True):
    """The timeouts of a wire operation.

    Attributes:
        connect: seconds until the connection must be established (name resolution, proxy and TLS included).
        idle: seconds without a byte after which the connection counts as lost.
        until: the time, on the driver's clock, at which waiting ends in any case; ``None`` for never.
        ping: interval of PING in seconds, 0 for none.
        ping_timeout: seconds a PING may stay unanswered before the path is suspected; infinite for no suspicion.
        stall: seconds without a byte of the response, once it has begun; answers to PING do not count.
        caller: the caller's own timeouts, which apply in addition.
        probe: the time, on the driver's clock, at which a second connection is tried beside a suspected path; ``None``
            for never.
        revive: the time at which a suspected path is given up; ``None`` for never.
        probe_path: index of the path of the second connection; ``None`` for that of the first.
    """

    connect: float
    idle: float
    until: float | None
    ping: float
    ping_timeout: float
    caller: CallerTimeouts = CallerTimeouts()
    stall: float | None = None
    probe: float | None = None
    revive: float | None = None
    probe_path: int | None = None


RetryAction: TypeAlias = Literal["retry", "replay", "continue", "restart", "resume"]
"""What is done about a lost attempt; see :attr:`RetryEvent.action`."""


class RetryEvent(msgspec.Struct, frozen=True):
    """The event of every retry and replay: an attempt was lost and another one follows.

    Attributes:
        action: ``"retry"`` if the request was provably not processed, ``"replay"`` if it may have been, ``"continue"``
            if the rest of an answer is asked for that was cut after output, ``"restart"`` if such an answer begins
            again, ``"resume"`` if the stream is taken up where it was cut.
        attempt: number of the lost attempt.
        of: the highest attempt number that the budget allows at this point.
        failure: how the attempt was lost.
        lost: the record of the lost attempt.
        delay: seconds until the next attempt.
        advice: what is done about this loss from now on (:attr:`unbroken.core.report.AttemptReport.lowered_ping`), or
            what to do about a pattern in the losses so far, or ``""``.
        path: the path that attempts take from now on, ``""`` if it is the same as before.
        character: how many characters of the answer came before the next attempt continues it; ``None`` if it does not.
        after: behind which event the next attempt takes up the response, as its server numbers or names it; ``None`` if
            it does not.
    """

    action: RetryAction
    attempt: int
    of: int
    failure: Failure
    lost: AttemptReport
    delay: float
    advice: str
    path: str = ""
    character: int | None = None
    after: str | None = None


class PathNotice(msgspec.Struct, frozen=True):
    """The event of a path that does not answer, or answers again: the attempt goes on.

    Attributes:
        attempt: number of the attempt.
        text: what is waited for, as a line for a person.
    """

    attempt: int
    text: str


# Actions


class Send(msgspec.Struct, frozen=True):
    """Send the request on a connection of its own; report as for :class:`Read`.

    Attributes:
        attempt: number of the attempt.
        limits: the timeouts.
        path: index of the path that it takes.
        request: another request than that of the turn, which asks for the rest of an answer; mostly ``None``.
    """

    attempt: int
    limits: Limits
    path: int = 0
    request: Request | None = None


class Prefer(msgspec.Struct, frozen=True):
    """Begin later turns to this server with the path of this index, for a while."""

    path: int


class Read(msgspec.Struct, frozen=True):
    """Read what comes next of the response; report ``head``, ``data``, ``end``, ``noticed`` or ``lost``."""

    limits: Limits


class Drop(msgspec.Struct, frozen=True):
    """Close the exchange at once, in any state."""


class LowerPing(msgspec.Struct, frozen=True):
    """Have the wire send PING at this interval, in seconds, on the path of the running attempt from now on."""

    interval: float


class Wait(msgspec.Struct, frozen=True):
    """Wait this many seconds."""

    seconds: float


class Notify(msgspec.Struct, frozen=True):
    """Notify the observer of the turn."""

    event: RetryEvent | PathNotice


class GiveHead(msgspec.Struct, frozen=True):
    """Hand the status and headers on to the caller."""

    head: Head


class Restart(msgspec.Struct, frozen=True):
    """Have the caller discard the answer so far: the attempt of this number begins it again with what is given next.

    Report :meth:`unbroken.core.turn.Turn.restarted`.
    """

    attempt: int


class Give(msgspec.Struct, frozen=True):
    """Hand bytes of the body on to the caller."""

    data: bytes


class Parting(msgspec.Struct, frozen=True):
    """A request about a response that was to go on at the server, once its turn is over.

    Attributes:
        kind: ``"cancel"``: nobody reads it any more. ``"delete"``: the caller did not want it kept.
        request: the request; a status below 300 acknowledges it.
    """

    kind: Literal["cancel", "delete"]
    request: Request


PARTING_TIME = 5.0
"""Seconds for all partings of a turn together."""

PARTING_TRIES = 3


class EndTurn(msgspec.Struct, frozen=True):
    """End the body that the caller reads."""


class Fail(msgspec.Struct, frozen=True):
    """Raise the error to the caller."""

    error: TurnError


Action: TypeAlias = Send | Prefer | Read | LowerPing | Drop | Wait | Notify | GiveHead | Restart | Give | EndTurn | Fail
