"""PING (RFC 9113, section 6.7): when one is due, and how often a path bears it.

Between the program and the model stand boxes that cut what is silent; PING keeps them from it and tells whether the
path lives. But servers count PINGs (gRPC's allow two early ones in five minutes), and end a connection that sends too
many. So there is at most one in flight, never more than one a second, none while the response flows and none without
a stream; and a path that was ended for it gets half as many, and then none. On the other side, a path that was cut
although PING was on may need more of them: the core says how many, and that is remembered here for a while.
"""

from __future__ import annotations

from collections import Counter

from unbroken.core.route import MIN_INTERVAL
from unbroken.wire.requests import Destination

REMEMBERED = 3600.0
"""Seconds for which an interval that a cut taught is remembered: the path may be repaired meanwhile."""

STEPS = (1.0, 2.0, 0.0)
"""What the interval is multiplied by: at first, after the first complaint, and after the second (no PING)."""


class Complaints:
    """The complaints about PING, by destination."""

    def __init__(self) -> None:
        self._steps: Counter[Destination] = Counter()

    def step(self, destination: Destination) -> int:
        """Return the present step of a destination, an index into :data:`STEPS`."""
        return self._steps[destination]

    def record(self, destination: Destination, step: int) -> None:
        """Record a complaint about PINGs that were sent at this step. Connections of the same time count as one."""
        self._steps[destination] = max(self._steps[destination], min(step + 1, len(STEPS) - 1))


class LearnedIntervals:
    """The intervals of PING that cuts have taught, by destination."""

    def __init__(self) -> None:
        self._learned: dict[Destination, tuple[float, float]] = {}

    def get(self, destination: Destination, now: float) -> float | None:
        """Return the interval that was learned for a destination within :data:`REMEMBERED`, ``None`` if none was."""
        interval, until = self._learned.get(destination, (0.0, now))
        return interval if now < until else None

    def record(self, destination: Destination, interval: float, now: float) -> None:
        """Record an interval in seconds. Attempts that were cut at the same time teach one, the shortest of theirs."""
        known = self.get(destination, now)
        self._learned[destination] = (interval if known is None else min(known, interval), now + REMEMBERED)

    def forget(self, destination: Destination) -> None:
        """Forget what was learned: the server complains of PING."""
        self._learned.pop(destination, None)


class KeepaliveMonitor:
    """The PINGs of one exchange.

    Args:
        now: when the exchange began.
        step: an index into :data:`STEPS`.
        learned: the longest interval that an earlier cut allows, ``None`` if none was learned.

    Attributes:
        step: the index.
        learned: the interval.
        round_trip: seconds that the last answered PING took, ``None`` before the first.
        sent_at: when the last PING was sent.
        answered_at: when the last answer came, ``None`` before the first.
        in_flight: whether the last PING is unanswered.
        sent_count: how many were sent.
        answered_count: how many of them were answered.
    """

    def __init__(self, now: float, step: int, learned: float | None = None) -> None:
        self.step = step
        self.learned = None if step else learned
        self.round_trip: float | None = None
        self.sent_at = now
        self.answered_at: float | None = None
        self.in_flight = False
        self.sent_count = self.answered_count = 0

    def spacing(self, interval: float) -> float | None:
        """Return the least time between two PINGs, ``None`` for no PING.

        Args:
            interval: seconds of silence that are asked for, 0 for no PING.
        """
        if self.learned is not None:
            interval = min(interval, self.learned)
        interval *= STEPS[self.step]
        return max(interval, MIN_INTERVAL) if interval else None

    def due(self, interval: float, heard_at: float) -> float | None:
        """Return when the next PING is due, ``None`` for never or not before an answer.

        Args:
            interval: as for :meth:`spacing`.
            heard_at: when the last byte came.
        """
        spacing = self.spacing(interval)
        return None if spacing is None or self.in_flight else max(heard_at, self.sent_at) + spacing

    def sent(self, now: float) -> None:
        """Record that a PING was sent."""
        self.sent_at, self.in_flight = now, True
        self.sent_count += 1

    def answered(self, now: float) -> None:
        """Record that it was answered."""
        if self.in_flight:
            self.in_flight, self.round_trip, self.answered_at = False, now - self.sent_at, now
            self.answered_count += 1
