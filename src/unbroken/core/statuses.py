"""Error statuses: which may pass, and which say that the request was not processed."""

from __future__ import annotations

from unbroken.core.failures import GATEWAY_TIMEOUTS, Failure
from unbroken.core.http import Head
from unbroken.core.policy import Policy, retry_after

NO_BODY = frozenset({*range(100, 200), 204, 205})
"""Statuses of responses without a body (RFC 9110, sections 15.2, 15.3.5 and 15.3.6)."""

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)}) - {511}  # a captive portal (RFC 6585, section 6)

TOO_BUSY = frozenset({429, 529})
"""Statuses that say that the request was not processed, however late (RFC 6585, section 4; Anthropic, "Errors")."""

NOT_PROCESSED = frozenset({408, 409, 425, 503, *TOO_BUSY})
"""Retryable statuses that are not billed; any other may come from a server that failed in the middle of its work."""


def judge(head: Head, elapsed: float, policy: Policy, wall_clock: float) -> Failure:
    """Return what an error status is: busy, a gateway that gave up, or a refusal.

    ``x-should-retry`` (OpenAI) takes precedence over the status, and ``Retry-After`` over its delay.

    Args:
        head: the response's head.
        elapsed: seconds since the attempt began.
        policy: the limits.
        wall_clock: now, in seconds since the epoch.
    """
    status, said = head.status, should_retry(head)
    if status < 400 or not (status in RETRYABLE_STATUSES if said is None else said):
        return Failure.REFUSED
    if status in GATEWAY_TIMEOUTS:
        return Failure.GATEWAY_GAVE_UP
    prompt = elapsed <= policy.slow_status_after or status in TOO_BUSY
    names_wait = retry_after(head.fields, wall_clock) is not None
    return Failure.BUSY if prompt or names_wait else Failure.GATEWAY_GAVE_UP


def should_retry(head: Head) -> bool | None:
    """Return the value of ``x-should-retry``; ``None`` if it is missing or unknown."""
    return {"true": True, "false": False}.get(head.fields.get("x-should-retry", "").strip().lower())
