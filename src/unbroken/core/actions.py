"""What a turn asks of its driver, and what it tells its observer: plain data."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from unbroken.core.failures import Failure
from unbroken.core.http import Head
from unbroken.core.report import AttemptReport
from unbroken.errors import TurnError


@dataclasses.dataclass(frozen=True, slots=True)
class CallerTimeouts:
    """Timeouts of the caller's own, such as httpx's. One that expires is raised, never replayed.

    Attributes:
        connect: seconds until the connection must stand.
        read: seconds without a byte of the response; answers to PING are none.
        write: seconds without a byte of the request being taken.
    """

    connect: float | None = None
    read: float | None = None
    write: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How long the wire may wait.

    Attributes:
        connect: seconds until the connection must stand (names, proxy and TLS included).
        idle: seconds without a byte after which the connection is lost.
        until: the moment, on the driver's clock, at which waiting ends whatever happens; ``None`` for never.
        ping: interval of PING in seconds, 0 for none.
        ping_timeout: seconds a PING may stay unanswered.
        caller: the caller's own timeouts, which hold besides.
    """

    connect: float
    idle: float
    until: float | None
    ping: float
    ping_timeout: float
    caller: CallerTimeouts = CallerTimeouts()


@dataclasses.dataclass(frozen=True, slots=True)
class RetryEvent:
    """An attempt was lost and another one follows: the observable event of every retry and replay.

    Attributes:
        action: ``"retry"`` where it was provably not processed, ``"replay"`` where it may have been.
        attempt: number of the lost attempt.
        of: how many attempts there can be at most, as things stand.
        failure: what happened.
        lost: the record of the lost attempt.
        delay: seconds until the next attempt.
        advice: what to do about a pattern in the losses so far, or ``""``.
    """

    action: Literal["retry", "replay"]
    attempt: int
    of: int
    failure: Failure
    lost: AttemptReport
    delay: float
    advice: str


# What a driver is asked to do.


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send the request on a connection of its own; answer with ``head`` or ``lost``."""

    attempt: int
    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read the next bytes of the body; answer with ``data``, ``end`` or ``lost``."""

    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Close the exchange at once, whatever it is doing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Wait this many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Notify:
    """Notify whoever observes the turn."""

    event: RetryEvent


@dataclasses.dataclass(frozen=True, slots=True)
class GiveHead:
    """Hand the status and headers on to the caller."""

    head: Head


@dataclasses.dataclass(frozen=True, slots=True)
class Give:
    """Hand bytes of the body on to the caller."""

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class EndTurn:
    """The body has ended, as far as the caller is concerned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """Raise this to the caller."""

    error: TurnError


Action: TypeAlias = Send | Read | Drop | Wait | Notify | GiveHead | Give | EndTurn | Fail
