"""A path that does not answer: what the wire reports of it, and what is done about it.

An unanswered PING is a suspicion, not a verdict: TCP brings back what was lost in an outage, if it is given the time.

* **Before the first output** a second connection is tried beside the suspected one, without the request. Until one
  stands, the network is away, and the first connection is kept. Once one stands, the network is there, and the first
  has :attr:`unbroken.core.policy.Policy.revive` seconds to come back. Only then is it given up, and the request sent on
  the second one.
* **After it**, and where the request must not be sent again, nothing can be won by giving up: the path is waited for as
  long as the other limits allow.

::

    Suspected          try a second connection now
    SecondFailed       try another one after a backoff
    SecondStands       give the first one up at now + revive
    Recovered          as if nothing had been
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from unbroken.core.failures import Failure
from unbroken.core.policy import Policy


class Suspected(msgspec.Struct, frozen=True):
    """The path has not answered for so long that it may be dead.

    Attributes:
        unanswered: seconds for which it has not answered.
        provable: whether a second connection can prove that the network is there.
    """

    unanswered: float
    provable: bool = True


class Recovered(msgspec.Struct, frozen=True):
    """The suspected path has answered. A second connection that stands is kept as an idle one."""


class SecondStands(msgspec.Struct, frozen=True):
    """A second connection is established, and its other end has answered."""


class SecondFailed(msgspec.Struct, frozen=True):
    """A second connection could not be established."""

    failure: Failure
    detail: str = ""


PathEvent: TypeAlias = Suspected | Recovered | SecondStands | SecondFailed
"""An event of the path that is no end of the exchange."""


class Suspicion:
    """A path under suspicion.

    Args:
        event: the wire's report.
        now: the driver's clock.
        policy: the limits.
        random: uniform in [0, 1), for jitter.

    Attributes:
        since: since when the path has not answered.
        probe: when a second connection is tried; ``None`` for never.
        failed: how many have failed.
        revive: when the path is given up; ``None`` for never.
        is_over: whether the path has answered.
    """

    def __init__(self, event: Suspected, now: float, policy: Policy, random: Callable[[], float]) -> None:
        self.since = now - event.unanswered
        self.probe: float | None = None
        self.revive: float | None = None
        self.is_over = False
        self._policy = policy
        self._random = random
        self.failed = 0

    def take(self, event: PathEvent, now: float, *, replaceable: Callable[[float], bool]) -> bool:
        """Take an event of the path; return whether another thing is waited for than before.

        Args:
            event: what happened.
            now: the driver's clock.
            replaceable: whether the request may be sent again at that time.
        """
        was = self._waits_for
        self.probe = self.revive = None
        match event:
            case Suspected():
                self.probe = now if event.provable and replaceable(now) else None
            case SecondFailed():
                later = now + self._policy.backoff(self.failed, self._random)
                self.probe = later if replaceable(later) else None
                self.failed += 1
            case SecondStands():
                later = now + self._policy.revive
                self.revive = later if replaceable(later) else None
            case Recovered():
                self.is_over = True
        return isinstance(event, Suspected) or self._waits_for != was

    def text(self, now: float) -> str:
        """Return what is waited for, as a line for a person."""
        silence = f"{now - self.since:.0f} s"
        if self.is_over:
            return f"the path answers again, after {silence}"
        return f"no answer from the path for {silence}, {self._waits_for}"

    @property
    def _waits_for(self) -> str:
        if self.is_over:
            return ""
        if self.revive is not None:
            return f"a second connection stands: the first has {self._policy.revive:g} s to come back"
        if self.probe is None:
            return "still waiting"
        return "waiting for the network" if self.failed else "trying a second connection beside it"
