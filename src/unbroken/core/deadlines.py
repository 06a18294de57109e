"""How long the next bytes of a body are waited for, by what is still owed."""

from __future__ import annotations

from unbroken.core.attempt import Attempt, Mode
from unbroken.core.failures import Phase
from unbroken.core.output_limit import OutputLimit
from unbroken.core.policy import Policy

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
