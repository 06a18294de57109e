"""PING (RFC 9113, section 6.7): when one is due, and how often a path bears it.

Between the program and the model stand boxes that cut what is silent; PING keeps them from it and tells whether the
path lives. But servers count PINGs (gRPC's allow two early ones in five minutes), and end a connection that sends too
many. So there is at most one in flight, never more than one a second, none while the response flows and none without
a stream; and a path that was ended for it gets half as many, and then none.
"""

from __future__ import annotations

from collections import Counter

from unbroken.wire.requests import Destination

MIN_INTERVAL = 1.0
"""Seconds between two PINGs, whatever is asked for."""

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


class KeepaliveMonitor:
    """The PINGs of one exchange.

    Args:
        now: when the exchange began.
        step: an index into :data:`STEPS`.

    Attributes:
        round_trip: seconds that the last answered PING took, ``None`` before the first.
        sent_at: when the last PING was sent.
        in_flight: whether it is unanswered.
    """

    def __init__(self, now: float, step: int) -> None:
        self.step = step
        self.round_trip: float | None = None
        self.sent_at = now
        self.in_flight = False

    def spacing(self, interval: float) -> float | None:
        """Return the least time between two PINGs, ``None`` for no PING.

        Args:
            interval: seconds of silence that are asked for, 0 for no PING.
        """
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

    def answered(self, now: float) -> None:
        """Record that it was answered."""
        if self.in_flight:
            self.in_flight, self.round_trip = False, now - self.sent_at
