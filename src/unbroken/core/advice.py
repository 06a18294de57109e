"""Detection of idle timers on the path, from the silences after which attempts were cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from unbroken.core.failures import Failure, Phase, Row

SIMILAR_CUTS = 3
"""How many cuts after about the same silence make a pattern."""

LATEST = 100
"""How many of the latest cuts count: older cuts may be from before the path was repaired."""

_NO_TIMERS = (Failure.IDLE_TIMEOUT, Failure.DEAD_PATH, Failure.STALLED, Failure.TOO_MANY_PINGS)

CUTS = frozenset(failure.code for failure in Failure if failure.row is Row.LOST and failure not in _NO_TIMERS)
"""Ends that tell of timers on the path: not those by a limit of our own, nor a complaint about PING."""


class SilentCut(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that was cut before its first output, while nothing was on the wire.

    Attributes:
        at: time of the cut; seconds since the epoch in the relay, since the turn's start in a report.
        silent: seconds without a byte on the wire.
        pinged: whether PING was sent.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"`` or ``""`` if unknown.
    """

    at: float
    silent: float
    pinged: bool = False
    http_version: str = ""


def is_silent_cut(phase: Phase, failure: str | None, silent: float) -> bool:
    """Return whether an attempt that ended like this was cut before its first output, with nothing on the wire."""
    return phase in (Phase.HEADERS, Phase.PRELUDE) and failure in CUTS and silent >= 1.0


def idle_timer(silences: Sequence[float]) -> float | None:
    """Return the silence in seconds at which cuts cluster, or ``None`` if they do not.

    A cluster is at least :data:`SIMILAR_CUTS` cuts, and half of all cuts, within a fifth (or 1 s) of one of them.
    """
    if not silences:
        return None
    clusters = ([silent for silent in silences if _is_near(silent, middle)] for middle in silences)
    largest = max(clusters, key=len)
    if len(largest) < SIMILAR_CUTS or 2 * len(largest) < len(silences):
        return None
    import statistics  # slow to import, and rarely needed

    return statistics.median(largest)


def advice(cuts: Iterable[SilentCut]) -> str:
    """Return what to do about cuts that cluster at one silence (an idle timer), or ``""`` without a cluster.

    Args:
        cuts: of one path, the oldest first.
    """
    latest = list(cuts)[-LATEST:]
    timer = idle_timer([cut.silent for cut in latest])
    if timer is None:
        return ""
    found = f"something on the way cuts idle connections after about {timer:.0f} s"
    cluster = [cut for cut in latest if _is_near(cut.silent, timer)]
    if any(cut.pinged for cut in cluster):
        return f"{found}, although PING kept them busy: take another path, or have that limit raised"
    if any(cut.http_version == "HTTP/2" for cut in cluster):
        return f"{found}: turn PING on (--ping 10), which keeps the path busy while the model thinks"
    why = ", and over HTTP/1.1 no PING can prevent it" if any(cut.http_version for cut in cluster) else ""
    return (
        f"{found}{why}: raise that limit (v2ray: policy.levels.0.connIdle), "
        "bypass the proxy (--no-proxy), or use an https endpoint that speaks HTTP/2"
    )


def _is_near(silent: float, middle: float) -> bool:
    return abs(silent - middle) <= max(1.0, 0.2 * middle)
