"""Findings from past turns: how often attempts were lost, after which silence, by which path, since when, what changed.

A pure function of the journal's entries; the time of day is told in the zone that is given.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from unbroken.core.advice import (
    LATEST,
    SIMILAR_CUTS,
    SilentCut,
    advice,
    idle_timer,
    is_near,
    parted,
    rounded,
)
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.finding import Finding
from unbroken.journal.entry import DAY, AnsweredCount, JournalEntry

WINDOWS = (SIMILAR_CUTS, 10, LATEST)
"""How many of a path's latest cuts are looked at alone, until some cluster: the timer of a path may have changed."""

NOTES = frozenset({"past_idle_cuts_ended", "past_losses", "journal_unreadable"})
"""Codes of findings that do not say that a path is wrong now."""

QUIET = 7 * DAY
"""Seconds without a cut after which a pattern is told as past."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


class UsedPath(msgspec.Struct, frozen=True):
    """A path that attempts took.

    Attributes:
        host: the upstream's host, with its port unless that is the scheme's own.
        proxy: URL of the proxy without credentials, ``""`` for none.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"`` or ``""`` if unknown; that of the last attempt.
    """

    host: str
    proxy: str
    http_version: str = ""


class PathFindings(msgspec.Struct, frozen=True):
    """Findings in the form of ``unbroken doctor --json``.

    Attributes:
        findings: the findings.
        idle_limit: seconds of silence after which the path is cut, ``None`` if that is not known.
        path: that path, ``None`` likewise.
    """

    findings: list[Finding]
    idle_limit: float | None = None
    path: UsedPath | None = None


class Pattern(NamedTuple):
    """Cuts of one path that cluster at one silence.

    Attributes:
        path: the path.
        timer: the silence, in seconds.
        cuts: the cuts of the cluster, oldest first.
        earlier: the path's cuts before them.
        is_past: whether it has not been seen for :data:`QUIET`.
    """

    path: UsedPath
    timer: float
    cuts: Sequence[SilentCut]
    earlier: Sequence[SilentCut]
    is_past: bool


class _Loss(NamedTuple):
    entry: JournalEntry
    cut: SilentCut | None


class PastTurns:
    """What past turns have met.

    Args:
        entries: the lost attempts, in any order.
        answered: counts of the attempts that were answered.
        now: seconds since the epoch.
        zone: the time zone in which times are told; ``None`` for the system's.
    """

    def __init__(
        self,
        entries: Iterable[JournalEntry],
        answered: Iterable[AnsweredCount],
        now: float,
        zone: datetime.tzinfo | None = None,
    ) -> None:
        self._now = now
        self._zone = zone
        self._lost: dict[tuple[str, str], list[_Loss]] = {}
        self._answered = [*answered]
        for entry in sorted(entries, key=lambda entry: entry.at):
            route = entry.attempt.route
            self._lost.setdefault((route.host, route.proxy), []).append(_Loss(entry, entry.silent_cut))
        found = (self._pattern(path) for path in self._lost)
        self.patterns = sorted(
            (pattern for pattern in found if pattern), key=lambda one: (one.is_past, -one.cuts[-1].at)
        )

    @property
    def current(self) -> Pattern | None:
        """The latest pattern that is still seen, ``None`` if there is none."""
        return next((pattern for pattern in self.patterns if not pattern.is_past), None)

    def pattern_of(self, host: str, proxy: str) -> Pattern | None:
        """Return the pattern of one path, ``None`` if there is none that is still seen."""
        ours = (one for one in self.patterns if (one.path.host, one.path.proxy) == (host, proxy))
        return next((pattern for pattern in ours if not pattern.is_past), None)

    @property
    def summary(self) -> PathFindings:
        """The findings, with the current pattern's silence and path."""
        current = self.current
        if current is None:
            return PathFindings(self.findings)
        return PathFindings(self.findings, round(current.timer, 1), current.path)

    @property
    def findings(self) -> list[Finding]:
        """The findings: patterns first, the latest at their head, and then other losses, path by path."""
        return [*map(self.finding_of, self.patterns), *self._of_other_losses()]

    def _pattern(self, path: tuple[str, str]) -> Pattern | None:
        """Return the pattern of a path's latest cuts, ``None`` if there is none."""
        cuts = [loss.cut for loss in self._lost[path] if loss.cut]
        latest = ([cut.silent for cut in cuts[-number:]] for number in WINDOWS)
        timer = next(filter(None, map(idle_timer, latest)), None)
        if timer is None:
            return None
        cluster = _latest_run([cut for cut in cuts if is_near(cut.silent, timer)])
        earlier = [cut for cut in cuts if cut.at < cluster[0].at]
        used = UsedPath(*path, cluster[-1].http_version)
        return Pattern(used, timer, cluster, earlier, is_past=self._now - cluster[-1].at > QUIET)

    def finding_of(self, pattern: Pattern) -> Finding:
        """Return what one of the patterns says."""
        first, last, count = pattern.cuts[0], pattern.cuts[-1], len(pattern.cuts)
        what = f"were answered HTTP {last.gateway_status}" if last.gateway_status else "were cut"
        told = (
            f"{count} attempts {_by(pattern.path)} {what} after about {rounded(pattern.timer)} of silence"
            f" {self._span(first.at, last.at)}"
        )
        changes = "".join(f"; {change}" for change in self._changes(pattern))
        if pattern.is_past:
            since = self._count(pattern.path, after=last.at)
            return Finding("past_idle_cuts_ended", f"{told}{changes}; none of {since} since then" if since else told)
        # An interval that a cut has lowered is forgotten with its process: the advice is to be one that stays.
        observed, step = parted(advice([msgspec.structs.replace(cut, lowered_ping=None) for cut in pattern.cuts]))
        why = f": {observed}" if observed else ""
        code = "past_gateway_timeouts" if last.gateway_status else "past_idle_cuts"
        return Finding(code, f"{told}{changes}{why}", step)

    def _changes(self, pattern: Pattern) -> Iterator[str]:
        """Yield what was otherwise: on this path before the pattern, and on other paths to the same server."""
        path, since = pattern.path, pattern.cuts[0].at
        before = idle_timer([cut.silent for cut in pattern.earlier])
        if before and not is_near(before, pattern.timer):
            yield f"before, after about {rounded(before)}"
        elif (count := self._count(path, before=since)) and not pattern.earlier:
            versions = {one.http_version for one in self._answered if _is_by(one, path) and one.day < since // DAY}
            over = "" if path.http_version in versions else f", over {' and '.join(sorted(versions))}"
            yield f"before{over}, none of {count} was"
        others = {one.proxy for one in self._answered if one.host == path.host and one.proxy != path.proxy}
        for proxy in sorted(others):
            yield from self._compared(UsedPath(path.host, proxy), since)

    def _compared(self, other: UsedPath, since: float) -> Iterator[str]:
        """Yield how another path to the same server fared, if nothing of it was cut for its silence."""
        if any(loss.cut for loss in self._lost.get((other.host, other.proxy), ())):
            return
        how = f"through {other.proxy}" if other.proxy else "over no proxy"
        before = self._count(other, before=since)
        if count := before or self._count(other):
            yield f"{'before, ' if before else ''}{how}, none of {count} was"

    def _count(self, path: UsedPath, *, before: float | None = None, after: float = 0.0) -> int:
        """Return how many attempts by a path were answered, before the day of a time or after it."""
        until = self._now // DAY + 1 if before is None else before // DAY
        since = after // DAY if after else -1
        return sum(one.attempts for one in self._answered if _is_by(one, path) and since < one.day < until)

    def _of_other_losses(self) -> Iterator[Finding]:
        """Yield the losses of each path that are in no pattern, where they are as many as would make one."""
        in_patterns = {id(cut) for pattern in self.patterns for cut in pattern.cuts}
        for (host, proxy), losses in self._lost.items():
            others = [loss.entry for loss in losses if id(loss.cut) not in in_patterns]
            if len(others) < SIMILAR_CUTS:
                continue
            kinds = Counter(map(_kind, others)).most_common()
            told = ", ".join(f"{kind} ({count})" for kind, count in kinds)
            also = "other " if len(others) < len(losses) else ""
            yield Finding(
                "past_losses",
                f"{len(others)} {also}attempts {_by(UsedPath(host, proxy))} were lost"
                f" {self._span(others[0].at, others[-1].at)}: {told}",
                _next_step(max(others, key=lambda entry: (dict(kinds)[_kind(entry)], entry.at))),
            )

    def _span(self, first: float, last: float) -> str:
        since, until = self._when(first), self._when(last)
        return until if since == until else f"since {since}, the last {until}"

    def _when(self, at: float) -> str:
        """Tell a day, and of today the time, such as ``today at 14:02``, ``Tuesday`` or ``3 November``."""
        then, now = (datetime.datetime.fromtimestamp(moment, self._zone) for moment in (at, self._now))
        days = (now.date() - then.date()).days
        if days < 1:
            return f"today at {then:%H:%M}"
        if days < 7:
            return "yesterday" if days == 1 else _WEEKDAYS[then.weekday()]
        year = "" if then.year == now.year else f" {then.year}"
        return f"{then.day} {_MONTHS[then.month - 1]}{year}"


def _by(path: UsedPath) -> str:
    version = f"over {path.http_version} " if path.http_version else ""
    host = path.host or "a server"
    return f"{version}through {path.proxy} to {host}" if path.proxy else f"{version}to {host}, over no proxy,"


def _latest_run(cuts: list[SilentCut]) -> list[SilentCut]:
    """Return the cuts since the last long pause, if they are a pattern by themselves; all of them if not."""
    pauses = [i for i in range(1, len(cuts)) if cuts[i].at - cuts[i - 1].at > QUIET]
    return cuts[pauses[-1] :] if pauses and len(cuts) - pauses[-1] >= SIMILAR_CUTS else cuts


def _is_by(count: AnsweredCount, path: UsedPath) -> bool:
    return (count.host, count.proxy) == (path.host, path.proxy)


_FAILURES = {failure.code: failure for failure in Failure}


def _kind(entry: JournalEntry) -> str:
    failure = _FAILURES.get(entry.attempt.failure or "")
    after = ", after output" if entry.attempt.phase is Phase.OUTPUT else ""
    return f"{failure.phrase if failure else entry.attempt.failure}{after}"


def _next_step(entry: JournalEntry) -> str:
    """Return what to do about losses of this kind that are no pattern."""
    failure = _FAILURES.get(entry.attempt.failure or "")
    if entry.attempt.phase is Phase.OUTPUT:
        return "--hold answer replays an answer that is cut, and --after-output continue asks for its rest"
    match failure.row if failure else None:
        case Row.UNREACHABLE | Row.MISCONFIGURED:
            return "unbroken doctor says how that path is now"
        case Row.BUSY | Row.TRANSIENT_ERROR | Row.NO_OUTPUT:
            return "that is the server's own: ask another one, or at another time"
    return ""
