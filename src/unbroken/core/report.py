"""What a turn went through: one record for each attempt, and what they say together."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

from unbroken.core.failures import Failure, Phase, Row

SIMILAR_CUTS = 3
"""This many cuts after about the same silence are a pattern."""


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt.

    Attributes:
        number: 1 for the first.
        phase: how far it came.
        failure: the stable code of what ended it, ``None`` for the attempt that answered. A loss after the answer had
            settled is noted here too; it cost nothing.
        detail: one line for a person; never a key, a credential or content.
        status: HTTP status, where there was one.
        elapsed: seconds from its start to its end.
        silent: seconds without a byte on the wire, either way, when it ended.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"`` or ``""`` where it is not known.
        pinged: whether HTTP/2 PING was kept up.
        billed: ``"no"`` where it provably was not processed, ``"unknown"`` where its tokens may have been billed,
            ``"yes"`` for the attempt that answered.
    """

    number: int
    phase: Phase
    failure: str | None = None
    detail: str = ""
    status: int | None = None
    elapsed: float = 0.0
    silent: float = 0.0
    http_version: str = ""
    pinged: bool = False
    billed: Literal["no", "unknown", "yes"] = "unknown"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole turn.

    Attributes:
        attempts: every attempt in order; the last one answered, if any did.
        retries: how many attempts were sent again because they were provably not processed.
        replays: how many attempts were sent again after they were lost.
        dialect: name of the dialect, ``""`` for a call of none.
    """

    attempts: tuple[AttemptReport, ...] = ()
    retries: int = 0
    replays: int = 0
    dialect: str = ""

    @property
    def lost(self) -> int:
        """How many attempts were lost before another one was made."""
        return self.retries + self.replays

    @property
    def possibly_billed(self) -> int:
        """How many lost attempts may have been billed."""
        return sum(attempt.billed == "unknown" for attempt in self.attempts)

    @property
    def advice(self) -> str:
        """What to do about a pattern: cuts that cluster at one silence are an idle timer. ``""`` without a pattern."""
        cuts = [attempt for attempt in self.attempts if _is_cut(attempt)]
        silences = [cut.silent for cut in cuts]
        if len(cuts) < SIMILAR_CUTS or not _similar(silences):
            return ""
        found = f"something on the way cuts idle connections after about {statistics.median(silences):.0f} s"
        if any(cut.pinged for cut in cuts):
            return f"{found}, although PING kept them busy: take another path, or have that limit raised"
        if any(cut.http_version == "HTTP/2" for cut in cuts):
            return f"{found}: turn PING on (--ping 10), which keeps the path busy while the model thinks"
        why = ", and over HTTP/1.1 no PING can prevent it" if any(cut.http_version for cut in cuts) else ""
        return (
            f"{found}{why}: raise that limit (v2ray: policy.levels.0.connIdle), "
            "bypass the proxy (--no-proxy), or use an https endpoint that speaks HTTP/2"
        )


_LOSSES = frozenset(failure.code for failure in Failure if failure.row is Row.LOST)


def _is_cut(attempt: AttemptReport) -> bool:
    waiting = attempt.phase in (Phase.HEADERS, Phase.PRELUDE)
    return waiting and attempt.failure in _LOSSES and attempt.silent >= 1.0


def _similar(silences: list[float]) -> bool:
    middle = statistics.median(silences)
    near = [silence for silence in silences if abs(silence - middle) <= max(1.0, 0.2 * middle)]
    return len(near) >= SIMILAR_CUTS
