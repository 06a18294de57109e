"""How long an attempt is waited for: the limits of the wire, and the time at which waiting ends."""

from __future__ import annotations

from unbroken.core.actions import CallerTimeouts, Limits
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.failures import Phase
from unbroken.core.output_limit import OutputLimit
from unbroken.core.paths import PathChoice
from unbroken.core.policy import Policy
from unbroken.core.suspicion import Suspicion

LINGER = 0.5
"""Seconds to wait for the end of the body after its terminator, so that the connection can be used again."""

USAGE_WAIT = 2.0
"""Seconds of silence to wait for the end of the body after the attempt settled and its usage came."""

READ_REFUSAL = 5.0
"""Seconds to wait for the body of an error response before deciding without it."""


def deadline(attempt: Attempt, policy: Policy, output_limit: OutputLimit, now: float) -> float | None:
    """Return the time at which waiting for the attempt's next bytes ends, ``None`` for never."""
    if attempt.mode is Mode.REFUSAL:
        return now + READ_REFUSAL
    if attempt.phase is Phase.COMPLETE:
        return now + LINGER
    if attempt.phase is Phase.SETTLED:
        nothing_owed = attempt.usage_came or attempt.noted is not None
        return now + (min(USAGE_WAIT, policy.settle_timeout) if nothing_owed else policy.settle_timeout)
    if attempt.has_output:
        return output_limit.until(attempt)
    return attempt.awaited_since + policy.first_output_timeout


def limits(
    attempt: Attempt,
    policy: Policy,
    caller: CallerTimeouts,
    suspicion: Suspicion | None,
    paths: PathChoice,
    until: float | None,
) -> Limits:
    """Return the limits of the attempt's next operation.

    Args:
        attempt: the attempt.
        policy: the limits of the turn.
        caller: the caller's own timeouts.
        suspicion: of its path, ``None`` if that answers.
        paths: the choice of its path.
        until: when waiting ends in any case.
    """
    has_begun = attempt.phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
    return Limits(
        policy.connect_timeout,
        policy.idle_timeout,
        until,
        policy.ping_interval,
        policy.ping_timeout,
        caller,
        policy.stall_timeout if has_begun else None,
        suspicion.probe if suspicion else None,
        suspicion.revive if suspicion else None,
        paths.beside(suspicion.failed) if suspicion and suspicion.probe is not None else None,
    )
