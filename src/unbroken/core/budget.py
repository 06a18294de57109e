"""The budget of a turn: how often its request may be sent again, after which wait, and until when."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from unbroken.core.attempt import Attempt
from unbroken.core.failures import Failure, Phase, Row, Verdict
from unbroken.core.policy import Policy
from unbroken.core.report import AttemptReport

NETWORK_AWAY = frozenset(
    {
        Failure.CONNECT_TIMEOUT,
        Failure.NO_ROUTE,
        Failure.DNS_TEMPORARY,
        Failure.PROXY_CANNOT_REACH,
        Failure.PROXY_CLOSED,
    }
)
"""Failures to connect without an answer from anybody but a proxy."""

REPLAYS = (Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF)
"""Verdicts by which a request is sent again that may have been processed."""


class RetryBudget:
    """What a turn may still spend.

    Args:
        policy: the limits.
        acts: whether the call has side effects at the server.
        lost: the attempts that were lost so far; the turn adds to it.
        random: uniform in [0, 1), for jitter.
        now: the driver's clock.

    Attributes:
        retries: how often a request was sent again that was provably not processed.
        replays: how often one that may have been.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        acts: bool,
        lost: Sequence[AttemptReport],
        random: Callable[[], float],
        now: float,
    ) -> None:
        self.retries = 0
        self.replays = 0
        self._policy = policy
        self._acts = acts
        self._lost = lost
        self._random = random
        self._tried_since = now
        self._retries_in_a_row = 0
        self._waits = 0
        self._unreachable_since: float | None = None

    def restart_clock(self, now: float) -> None:
        """Count ``give_up_after`` from now: the attempt that is lost made progress, however long it took."""
        self._tried_since = now

    def restart_retries(self) -> None:
        """Count retries, and their waits, anew: the response that is taken up has brought something."""
        self._retries_in_a_row = self._waits = 0

    def delay(self, how: Verdict) -> float:
        """Return the seconds to wait: none before the first replay, otherwise the backoff."""
        if how is Verdict.REPLAY and self.replays == 0:
            return 0.0
        return self._policy.backoff(self._waits, self._random)

    def clamped_delay(self, how: Verdict, failure: Failure, attempt: Attempt, now: float) -> float:
        """Return :meth:`delay`, but not beyond a limit, so that the last attempt starts at the limit."""
        delay, limit = self.delay(how), self._limit(failure, attempt)
        return min(delay, limit - now) if now < limit else delay

    def is_exhausted_by(self, status: int) -> bool:
        """Return whether one and the same status, without a wait that it names, was retried often enough."""
        busy = (lost.status if lost.failure == Failure.BUSY.code else None for lost in reversed(self._lost))
        in_a_row = sum(1 for _ in itertools.takewhile(lambda last: last == status, busy))
        return in_a_row >= self._policy.same_status_retries

    def forbids(
        self, how: Verdict, failure: Failure, attempt: Attempt, start: float, *, is_new_path: bool = False
    ) -> str:
        """Return why another attempt is not allowed; ``""`` if it is.

        Args:
            how: the verdict on the failure of the attempt.
            failure: how the attempt is lost.
            attempt: the attempt that is lost.
            start: when the other one would start.
            is_new_path: whether it would take a path that none has taken.
        """
        policy = self._policy
        if how in REPLAYS and self._acts and not policy.replay_side_effects:
            return "not replayed: the call acts on the world"
        replays = policy.replays_on(attempt.route)
        if how in REPLAYS and self.replays >= replays:
            return f"{times(replays, 'replay')} used up" if replays else "no replays allowed"
        counts = how not in REPLAYS and not (policy.retries and self._is_away(failure))
        if counts and self._retries_in_a_row >= policy.retries:
            return f"{times(policy.retries, 'retry', 'retries')} used up" if policy.retries else "no retries allowed"
        if too_late := self.is_too_late(start):
            return too_late
        tried = f"tried for {policy.unreachable_for:g} s, the limit of Policy.unreachable_for"
        return tried if start > self._limit(failure, attempt) and not is_new_path else ""

    def is_too_late(self, start: float) -> str:
        """Return why no attempt may start at this time any more; ``""`` if one may."""
        limit = self._policy.give_up_after
        if start <= self._tried_since + limit:
            return ""
        return f"gave up after {limit:g} s, the limit of Policy.give_up_after and --give-up-after"

    def left(self, how: Verdict, failure: Failure, attempt: Attempt, start: float) -> int:
        """Return how many further attempts the budget and the limit allow, the one at ``start`` among them."""
        if how in REPLAYS:
            return self._policy.replays_on(attempt.route) - self.replays
        waits, limit = self._waits + 1, self._limit(failure, attempt)
        left = self._policy.retries - self._retries_in_a_row  # waiting for the network uses none of them up
        possible = 1
        while possible < left and start < limit:
            start += self._policy.backoff(waits, lambda: 1.0)
            waits, possible = waits + 1, possible + 1
        return possible

    def spend(self, how: Verdict, failure: Failure, attempt: Attempt, delay: float) -> None:
        """Count another attempt, which starts after a delay, in seconds."""
        if failure.row is not Row.UNREACHABLE:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = attempt.started
        replay = how in REPLAYS
        self.replays += replay
        self.retries += not replay
        self._retries_in_a_row = 0 if replay else self._retries_in_a_row + (not self._is_away(failure))
        self._waits += delay > 0

    def _limit(self, failure: Failure, attempt: Attempt) -> float:
        """Return the time after which no further attempt starts."""
        limit = self._tried_since + self._policy.give_up_after
        if failure.row is Row.UNREACHABLE and not self._is_away(failure):
            since = attempt.started if self._unreachable_since is None else self._unreachable_since
            limit = min(limit, since + self._policy.unreachable_for)
        return limit

    def _is_away(self, failure: Failure) -> bool:
        """Return whether the network is away from a turn that was connected before: it is waited for."""
        was_connected = any(lost.phase is not Phase.CONNECT for lost in self._lost)
        return was_connected and failure in NETWORK_AWAY


def times(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"
