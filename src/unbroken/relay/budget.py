"""What all requests together may use: turns at once, and bytes held of requests and of responses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from unbroken.relay.client_request import Rejection
from unbroken.relay.settings import Settings

_RETRY_AFTER = ((b"retry-after", b"1"),)


class Budget:
    """Counts turns and held bytes, from the first byte of a request to the end of its response.

    Args:
        settings: the settings with the limits.

    Attributes:
        turns: how many turns run, or have a request that is arriving.
        held: bytes of requests and responses that are held.
    """

    def __init__(self, settings: Settings) -> None:
        self.turns = 0
        self.held = 0
        self._max_turns = settings.max_turns
        self._max_held = settings.max_held

    @contextlib.contextmanager
    def turn(self) -> Iterator[Holding]:
        """Count a turn, and what it holds, while this is entered.

        Raises:
            Rejection: 503, there are too many.
        """
        if self.turns >= self._max_turns:
            raise Rejection(503, "too_many_turns", f"{self._max_turns} turns run already (--max-turns)", _RETRY_AFTER)
        self.turns += 1
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.turns -= 1
            self.held -= holding.size

    def hold(self, size: int) -> None:
        """Count further bytes.

        Raises:
            Rejection: 503, they are too many.
        """
        if self.held + size > self._max_held:
            full = f"{self.held} bytes are held already (--max-held)"
            raise Rejection(503, "too_much_held", full, _RETRY_AFTER)
        self.held += size


class Holding:
    """What one turn holds.

    Args:
        budget: where it is counted.

    Attributes:
        size: bytes.
    """

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self._response = 0
        self._budget = budget

    def add(self, size: int) -> None:
        """Hold further bytes.

        Raises:
            Rejection: 503, all turns together hold too many.
        """
        self._budget.hold(size)
        self.size += size

    def may_hold(self, response: int) -> bool:
        """Count anew how many bytes of the response are held; return ``False`` if they are too many."""
        try:
            self.add(response - self._response)
        except Rejection:
            return False
        self._response = response
        return True
