"""What is going on: the turns that run, the last that ended, and the silences in which attempts were cut."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from unbroken.core.report import idle_timer
from unbroken.relay.records import Cut, Outcome, TurnRecord, cuts_of
from unbroken.relay.turns import RelayedTurn

RECENT = 100
"""How many ended turns are kept."""

LIVE = 200
"""How many running turns are shown: more than anybody can watch."""

CUTS = 1000
"""How many cuts are kept."""


class Totals(msgspec.Struct):
    """Counts since the start.

    Attributes:
        turns: how many have ended.
        answered: how many of them with a whole answer.
        saved: how many of those had lost an attempt before.
        cut: how many were lost, before or after output.
        passed: how many requests were passed through.
    """

    turns: int = 0
    answered: int = 0
    saved: int = 0
    cut: int = 0
    passed: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the board shows at one moment, or what is new since another one.

    Attributes:
        version: of Unbroken.
        started: when the relay was started, in seconds since the epoch.
        now: the moment.
        upstreams: their names.
        running: how many turns run.
        live: the oldest of them.
        recent: the last that ended, newest first.
        cuts: the last cuts, oldest first.
        advice: what these cuts' silences mean, or ``""``.
        totals: counts.
    """

    version: str
    started: float
    now: float
    upstreams: tuple[str, ...]
    running: int
    live: tuple[TurnRecord, ...]
    recent: tuple[TurnRecord, ...]
    cuts: tuple[Cut, ...]
    advice: str
    totals: Totals


class Board:
    """Keeps what the page and the log want to know.

    Attributes:
        live: the turns that run, by their names.
        recent: the last that ended, newest first.
        cuts: the last cuts, oldest first.
        totals: counts.
    """

    def __init__(self) -> None:
        self.live: dict[str, RelayedTurn] = {}
        self.recent: deque[TurnRecord] = deque(maxlen=RECENT)
        self.cuts: deque[Cut] = deque(maxlen=CUTS)
        self.totals = Totals()
        self._started = time.time()

    def enter(self, turn: RelayedTurn) -> None:
        """A turn begins."""
        self.live[turn.id] = turn

    def leave(self, turn: RelayedTurn) -> TurnRecord:
        """A turn has ended."""
        self.live.pop(turn.id, None)
        record = turn.record()
        self.recent.appendleft(record)
        self.cuts.extend(cuts_of(record))
        totals = self.totals
        totals.turns += 1
        totals.answered += record.outcome is Outcome.ANSWERED
        totals.saved += record.saved
        totals.cut += record.outcome in (Outcome.CUT, Outcome.LOST)
        return record

    def snapshot(self, version: str, upstreams: tuple[str, ...], since: int = 0) -> Snapshot:
        """Everything, now; of the turns that have ended only what is new.

        Args:
            version: of Unbroken.
            upstreams: their names.
            since: how many turns had ended when somebody looked last.
        """
        recent = tuple(islice(self.recent, max(0, self.totals.turns - since)))
        cuts = [cut for turn in reversed(recent) for cut in cuts_of(turn)] if since else self.cuts
        return Snapshot(
            version=version,
            started=self._started,
            now=time.time(),
            upstreams=upstreams,
            running=len(self.live),
            live=tuple(turn.record() for turn in islice(self.live.values(), LIVE)),
            recent=recent,
            cuts=tuple(cuts),
            advice=advice(cuts),
            totals=self.totals,
        )


def advice(cuts: Iterable[Cut]) -> str:
    """What the silences of the last cuts mean; ``""`` where they do not cluster."""
    latest = list(cuts)[-RECENT:]
    timer = idle_timer([cut.silent for cut in latest])
    if timer is None:
        return ""
    found = f"cuts cluster at {timer:.0f} s of silence: something on the way closes idle connections"
    if any(cut.pinged for cut in latest if abs(cut.silent - timer) <= max(1.0, 0.2 * timer)):
        return f"{found}, although PING kept them busy: take another path, or have that limit raised"
    return f"{found}; raise that limit, or use an https upstream that speaks HTTP/2, over which PING prevents it"


def merged(pictures: Sequence[Snapshot]) -> Snapshot:
    """What several processes of one relay know, as one picture."""
    first = pictures[0]
    cuts = sorted((cut for picture in pictures for cut in picture.cuts), key=lambda cut: cut.at)[-CUTS:]
    recent = sorted(
        (turn for picture in pictures for turn in picture.recent), key=lambda turn: turn.started + turn.elapsed
    )
    live = sorted((turn for picture in pictures for turn in picture.live), key=lambda turn: turn.started)
    counts = {name: sum(getattr(picture.totals, name) for picture in pictures) for name in Totals.__struct_fields__}
    return Snapshot(
        version=first.version,
        started=min(picture.started for picture in pictures),
        now=first.now,
        upstreams=first.upstreams,
        running=sum(picture.running for picture in pictures),
        live=tuple(live[:LIVE]),
        recent=tuple(recent[: -RECENT - 1 : -1]),
        cuts=tuple(cuts),
        advice=advice(cuts),
        totals=Totals(**counts),
    )
