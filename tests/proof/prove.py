"""Random schedules of faults through the core, in virtual time: ``make prove``.

python -m proof.prove --schedules 1000000 --seed 7
python -m proof.prove --seed 7 --only 4711        one of them, told in full
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pprint import pformat

from proof.judge import judge
from proof.schedules import Schedule, ScheduledServer, draw, request_of
from properties.playing import Played, Player
from unbroken.core.turn import Turn

SCHEDULES = 1_000_000
SEED = 20261127

MOST_BROKEN = 20
"""Schedules that break the rule after which no more are played."""


def play(schedule: Schedule) -> tuple[Played, ScheduledServer]:
    """Play a schedule."""
    request, call = request_of(schedule)
    server = ScheduledServer(schedule)
    jitter = random.Random(schedule.number)
    turn = Turn(
        call,
        schedule.policy(),
        now=0.0,
        random=jitter.random,
        wall_clock=lambda: 0.0,
        request=request,
        continuation=schedule.style if schedule.choice == "continue" else None,
        may_restart=True,
    )
    return Player(turn, request, server, pours=schedule.pours, leaves_at=schedule.leaves_at).run(), server


def verdict(schedule: Schedule) -> tuple[str, Played | None]:
    """Play a schedule; return how it broke the rule, ``""`` if it did not."""
    try:
        played, server = play(schedule)
        return judge(schedule, server, played), played
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is none of what a turn may raise
        return f"{type(exc).__name__}: {exc}", None


@dataclasses.dataclass
class Proof:
    """What came of many schedules.

    Attributes:
        counts: of outcomes, requests and what was done about cuts.
        broken: the schedules that broke the rule, and how.
    """

    seed: int
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    broken: list[tuple[Schedule, str]] = dataclasses.field(default_factory=list)

    def play(self, schedules: int, progress: Callable[[int], None] = lambda done: None) -> None:
        """Play so many schedules, unless too many break the rule."""
        for number in range(schedules):
            self.take(draw(self.seed, number))
            progress(number + 1)
            if len(self.broken) == MOST_BROKEN:
                return

    def take(self, schedule: Schedule) -> None:
        """Play one schedule and count what came of it."""
        wrong, played = verdict(schedule)
        self.counts["schedules"] += 1
        if wrong:
            self.broken.append((schedule, wrong))
        if played is not None:
            self._count(played)

    def _count(self, played: Played) -> None:
        report, counts = played.report, self.counts
        counts["left" if played.left else type(played.error).__name__ if played.error else "ended"] += 1
        counts["requests"] += len(played.requests)
        counts["bytes"] += sum(map(len, played.deliveries))
        counts["retries"] += report.retries
        counts["replays"] += report.replays
        counts["resumed"] += len(report.resumes)
        counts["continued"] += len(report.seams)
        counts["restarted"] += len(report.restarts)


def summary(command: str, seed: int, counts: Counter[str], broken: list[tuple[Schedule, str]], seconds: float) -> int:
    """Write what came of the schedules, and those that broke the rule with the command that plays each again."""
    result = {"seed": seed, **counts, "seconds": round(seconds), "broken": len(broken)}
    sys.stdout.write(json.dumps(result) + "\n")
    for schedule, wrong in broken[:5]:
        again = f"make {command} SEED={schedule.seed} ONLY={schedule.number}"
        sys.stdout.write(f"{wrong}\n  {again}\n{pformat(schedule, width=110)}\n")
    return int(bool(broken))


def tell(schedule: Schedule, wrong: str, played: Played | None) -> int:
    """Write what came of one schedule."""
    sys.stdout.write(f"{pformat(schedule, width=110)}\n")
    for attempt in played.report.attempts if played else ():
        sys.stdout.write(f"{attempt.number}: {attempt.phase} {attempt.failure} {attempt.detail}\n")
    sys.stdout.write(f"{wrong or 'it keeps the rule'}\n")
    return int(bool(wrong))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Random schedules of faults through the core, judged by the rule.")
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="play this one alone, and tell it")
    options = parser.parse_args()
    if options.only is not None:
        schedule = draw(options.seed, options.only)
        return tell(schedule, *verdict(schedule))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what runs in the background
    began = time.monotonic()

    def progress(done: int) -> None:
        if done % 1000 == 0 and sys.stderr.isatty():
            rate = done / (time.monotonic() - began)
            sys.stderr.write(f"\r{done:,} of {options.schedules:,} schedules, {rate:.0f} a second ")
            sys.stderr.flush()

    proof = Proof(options.seed)
    with contextlib.suppress(KeyboardInterrupt):  # what was played until then counts
        proof.play(options.schedules, progress)
    return summary("prove", options.seed, proof.counts, proof.broken, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
