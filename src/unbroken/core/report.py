"""What a turn went through: one record for each attempt, and what they say together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
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
        after: seconds from the turn's start to its start.
        headers_after: seconds from its start to the response's headers, ``None`` where none came.
        output_after: seconds from its start to the model's first output, ``None`` where there was none.
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
    after: float = 0.0
    headers_after: float | None = None
    output_after: float | None = None
    elapsed: float = 0.0
    silent: float = 0.0
    http_version: str = ""
    pinged: bool = False
    billed: Literal["no", "unknown", "yes"] = "unknown"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running turn has come: what a user interface shows while it waits.

    Attributes:
        phase: of the running attempt.
        attempt: its number, 1 for the first.
        sent: whether any byte of its request may have left.
        silent: seconds since the last byte on its connection, either way.
        round_trip: seconds that the last answered PING took, ``None`` before the first.
    """

    phase: Phase
    attempt: int
    sent: bool = False
    silent: float = 0.0
    round_trip: float | None = None


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
    def losses(self) -> tuple[str, ...]:
        """What attempts were lost by, and how far they had come, such as ``"reset@headers"``.

        What happened after an answer had settled, and an error that was handed on, lost nothing.
        """
        lost = (attempt for attempt in self.attempts if attempt.phase not in (Phase.SETTLED, Phase.COMPLETE))
        return tuple(f"{attempt.failure}@{attempt.phase}" for attempt in lost if attempt.failure)

    @property
    def possibly_billed(self) -> int:
        """How many lost attempts may have been billed."""
        return sum(attempt.billed == "unknown" for attempt in self.attempts)

    @property
    def advice(self) -> str:
        """What to do about a pattern: cuts that cluster at one silence are an idle timer. ``""`` without a pattern."""
        cuts = [attempt for attempt in self.attempts if is_silent_cut(attempt)]
        timer = idle_timer([cut.silent for cut in cuts])
        if timer is None:
            return ""
        found = f"something on the way cuts idle connections after about {timer:.0f} s"
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


def is_silent_cut(attempt: AttemptReport) -> bool:
    """Whether an attempt was cut before its first output, while nothing was on the wire."""
    waiting = attempt.phase in (Phase.HEADERS, Phase.PRELUDE)
    return waiting and attempt.failure in _LOSSES and attempt.silent >= 1.0


def idle_timer(silences: Sequence[float]) -> float | None:
    """The silence in seconds at which cuts cluster: somebody's idle timer. ``None`` where they do not.

    A cluster is at least :data:`SIMILAR_CUTS` cuts, and half of them all, within a fifth (or 1 s) of one of them.
    """
    if not silences:
        return None
    clusters = ([s for s in silences if abs(s - middle) <= max(1.0, 0.2 * middle)] for middle in silences)
    largest = max(clusters, key=len)
    if len(largest) < SIMILAR_CUTS or 2 * len(largest) < len(silences):
        return None
    return statistics.median(largest)
