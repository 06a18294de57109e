"""Fuzz for some minutes, and keep what is found: ``make fuzz``.

    python -m fuzz.run --minutes 10
    python -m fuzz.run --only http1 --only relay

What breaks a target is shrunk and written to ``tests/corpora/fuzz``, which the fast lane plays from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from hypothesis import HealthCheck, given, seed, settings

from core.corpus import CORPORA
from fuzz.targets import RELAY, RELAY_GARBAGE, SIZES, TARGETS, RelayUnderFire, Target

EXAMPLES = 200
"""Of one target at a time."""


def fuzz(targets: dict[str, Target], minutes: float, first_seed: int, progress: Callable[[str], None]) -> Counter[str]:
    """Fuzz each target in turn until the time is up; return how many examples each got, and how many broke it."""
    counts: Counter[str] = Counter()
    ends, number = time.monotonic() + 60 * minutes, first_seed
    while time.monotonic() < ends:
        for name, target in targets.items():
            if time.monotonic() > ends:
                break
            progress(f"seed {number}, {name}")
            counts["found"] += _round(name, target, number, counts)
        number += 1
    return counts


def _round(name: str, target: Target, number: int, counts: Counter[str]) -> bool:
    """Give a target some garbage; return whether some of it broke it."""
    last = b""

    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.garbage, SIZES)
    def run(data: bytes, sizes: Sequence[int]) -> None:
        nonlocal last
        last = data
        counts[name] += 1
        target.feed(data, sizes)

    try:
        run()
    except BaseException as exc:
        if not isinstance(exc, Exception):
            raise
        _keep(name, last)  # the smallest one is tried last
        traceback.print_exc()
        return True
    return False


def _keep(name: str, data: bytes) -> None:
    folder = CORPORA / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{hashlib.sha256(data).hexdigest()[:12]}.bin").write_bytes(data)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Garbage for everything that reads what others send.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", choices=[*TARGETS, RELAY], metavar="TARGET")
    options = parser.parse_args()

    def progress(doing: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{doing:60}")
            sys.stderr.flush()

    with ExitStack() as stack:
        targets = {**TARGETS, RELAY: Target(RELAY_GARBAGE, RelayUnderFire(stack).feed)}
        chosen = {name: target for name, target in targets.items() if not options.only or name in options.only}
        counts = fuzz(chosen, options.minutes, options.seed, progress)
    sys.stdout.write(json.dumps({"seed": options.seed, "minutes": options.minutes, **counts}) + "\n")
    return int(counts["found"] > 0)


if __name__ == "__main__":
    sys.exit(main())
