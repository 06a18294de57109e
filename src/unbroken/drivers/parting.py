"""What is asked of a server once a turn is over: limits of each request, and the shield around them all."""

from __future__ import annotations

import math
from typing import Any

from unbroken.core.actions import Limits

DECIDED = frozenset({*range(200, 500)}) - {408, 409, 425, 429}
"""Statuses after which asking again changes nothing."""


def limits_until(until: float, now: float) -> Limits:
    """Return the limits of a request that must be answered by then."""
    left = max(0.001, until - now)
    return Limits(connect=left, idle=left, until=until, ping=0.0, ping_timeout=math.inf)


class Shield:
    """A context of blocking code: nothing is cancelled there."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        return None


class AsyncShield:
    """A context that the caller's cancellation does not interrupt, for asyncio and trio."""

    async def __aenter__(self) -> None:
        import anyio  # blocking code needs none

        self._scope: Any = anyio.CancelScope(shield=True)
        self._scope.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self._scope.__exit__(*exc_info)
