"""The state of beginning an answer again over a turn: ``after_output="restart"``."""

from __future__ import annotations

from unbroken.core.actions import Restart
from unbroken.core.events import Restarted


class Restarter:
    """What beginning again needs over a turn. It is made only where the policy says so and the caller can be told.

    The caller is told with the first bytes of the attempt that begins again: until then it keeps what it has, which is
    all it will have if no further attempt has an answer.

    Attributes:
        restarts: what the caller was told, in order.
        is_due: whether the caller has output of a lost attempt, and nothing yet of the running one.
    """

    def __init__(self) -> None:
        self.restarts: list[Restarted] = []
        self.is_due = False
        self._has_handed_on = False

    def begin(self) -> None:
        """Begin an attempt."""
        self.is_due = self.is_due or self._has_handed_on
        self._has_handed_on = False

    def hand_on(self, attempt: int) -> list[Restart]:
        """Take that bytes of the running attempt, of this number, are handed on; return what is done before that."""
        first = [Restart(attempt)] if self.is_due else []
        self.is_due, self._has_handed_on = False, True
        return first
