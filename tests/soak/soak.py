"""Steady load with mixed faults for half an hour: ``make soak``. What a process holds in the end, it held before.

    python -m soak.soak --minutes 30 --rate 25 --seed 7

One process has the relay and the clients, sync and async, and the SDK's transport; the lab is another one. Turns are
asked at a steady rate, of every dialect, on HTTP/1.1 and on HTTP/2 over TLS; half of all requests meet a fault. After a
warm-up, and at the end, the load rests and the process is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos.faces import DIALECTS_ASKED, FACES, TEXT, VERSIONS, Faces

MINUTES, RATE, SEED = 30.0, 25.0, 20261127
AT_ONCE = 8
WARM_UP = 120.0
"""Seconds of load before the first measurement, at most; a fifth of the whole if that is less."""

REST, LONGEST_REST = 3.0, 30.0
"""Seconds without load before a measurement; and until what is still closing must be closed."""

REQUESTS_EACH = 8
"""Requests that the faults of one turn are drawn for."""

GROWTH, GROWTH_BYTES = 0.05, 8 * 2**20
"""By how much the memory may have grown: a part of it, and so many bytes more: the allocator's own."""

IDLE_SOCKETS = 2 * len(DIALECTS_ASKED) * 2 + 4
"""By how many the sockets may differ: each client keeps an idle connection, or has just lost it."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the process holds at rest.

    Attributes:
        rss: resident memory, in bytes.
        sockets: open ones.
        threads: running ones.
        tasks: of the relay's event loop.
    """

    rss: int
    sockets: int
    threads: int
    tasks: int

    def exceeds(self, before: Measured) -> list[str]:
        """Return what has grown since."""
        wrong = []
        if self.rss > before.rss * (1 + GROWTH) + GROWTH_BYTES:
            wrong.append(f"{self.rss / 2**20:.1f} MiB of memory after {before.rss / 2**20:.1f}")
        if self.sockets > before.sockets + IDLE_SOCKETS:
            wrong.append(f"{self.sockets} sockets after {before.sockets}")
        if self.threads > before.threads:
            wrong.append(f"{self.threads} threads after {before.threads}")
        if self.tasks > before.tasks:
            wrong.append(f"{self.tasks} tasks after {before.tasks}")
        return wrong


def measure(faces: Faces) -> Measured:
    """Measure this process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps what was freed, and can give it back
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sockets = sum(target.startswith("socket:") for target in _descriptors())
    return Measured(pages * os.sysconf("SC_PAGE_SIZE"), sockets, threading.active_count(), faces.tasks())


def _descriptors() -> Iterator[str]:
    """Yield what each descriptor of this process leads to."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder is closed meanwhile
            yield str(link.readlink())


class Load:
    """Turns at a steady rate, until it is told to stop.

    Args:
        faces: through which they are run.
        rate: turns a second.
        seed: of the choice of each.
    """

    def __init__(self, faces: Faces, rate: float, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._faces = faces
        self._rate = rate
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._next = 0.0
        self._stop = threading.Event()

    def run(self, seconds: float) -> None:
        """Run turns for so many seconds, and wait until the last has ended."""
        self._stop.clear()
        self._next = time.monotonic()
        threads = [threading.Thread(target=self._work, name="load") for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._next = max(
                    self._next + 1 / self._rate, time.monotonic() - 1
                )  # what was missed is not made up for
                wait, choice = self._next - time.monotonic(), self._choice()
            if wait > 0 and self._stop.wait(wait):
                return
            self._turn(*choice)

    def _choice(self) -> tuple[str, str, int]:
        chance = self._chance
        return chance.choice(FACES), chance.choice(VERSIONS), chance.randrange(len(DIALECTS_ASKED))

    def _turn(self, face: str, version: str, dialect: int) -> None:
        where = f"{face}, {version}, {DIALECTS_ASKED[dialect].name}"
        try:
            turn = self._faces.ask(face, version, DIALECTS_ASKED[dialect], "Hello?")
            wrong = "" if TEXT.startswith(turn.text) else f"foreign or doubled text {turn.text[:80]!r}"
            if turn.outcome == "whole" and turn.text != TEXT:
                wrong = f"{turn.text[-80:]!r} called whole"
            outcome = turn.outcome
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is none of what a turn may raise
            outcome, wrong = "exception", f"{type(exc).__name__}: {exc}"
        with self._lock:
            self.counts["turns"] += 1
            self.counts[outcome] += 1
            if wrong and len(self.wrong) < 20:
                self.wrong.append(f"{where}: {wrong}")
            if self.counts["turns"] % 100 == 0:
                self._faces.served.entries.clear()  # the test's own record of the access log


@contextlib.contextmanager
def upstreams(seed: int, requests: int) -> Iterator[Faces]:
    """Start the lab in a process of its own, and every face before it."""
    with tempfile.TemporaryDirectory() as folder:
        ca_file = Path(folder) / "ca.pem"
        command = [sys.executable, "-m", "soak.lab", str(seed), str(requests), str(ca_file)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as lab:
            assert lab.stdin
            assert lab.stdout
            try:
                with Faces(json.loads(lab.stdout.readline()), ca_file) as faces:
                    yield faces
            finally:
                lab.stdin.close()


@dataclasses.dataclass(frozen=True)
class Soaked:
    """What came of a soak.

    Attributes:
        before, after: what the process held.
        samples: its memory under load, in bytes.
        counts: turns by what came of them.
        wrong: turns that broke the rule.
    """

    before: Measured
    after: Measured
    samples: list[int]
    counts: Counter[str]
    wrong: list[str]

    @property
    def grown(self) -> list[str]:
        """What the process holds more of than before."""
        return self.after.exceeds(self.before)


def soak(
    seconds: float, rate: float = RATE, seed: int = SEED, progress: Callable[[str], None] = lambda line: None
) -> Soaked:
    """Run steady load for so many seconds."""
    warm_up = min(WARM_UP, max(5.0, seconds / 5))
    with upstreams(seed, int((seconds + warm_up) * rate * REQUESTS_EACH)) as faces:
        load = Load(faces, rate, seed)
        load.run(warm_up)
        before = _at_rest(faces)
        load.counts.clear()
        samples = []
        parts = max(1, round(seconds / 60))
        for part in range(parts):
            load.run(seconds / parts)
            samples.append(measure(faces).rss)
            progress(f"{part + 1} of {parts}: {load.counts['turns']} turns, {samples[-1] / 2**20:.1f} MiB")
        after = _at_rest(faces)
        ends = time.monotonic() + LONGEST_REST
        while after.exceeds(before) and time.monotonic() < ends:
            after = _at_rest(faces)
        return Soaked(before, after, samples, load.counts, load.wrong)


def _at_rest(faces: Faces) -> Measured:
    """Measure once nothing runs: the least of what is held while the load rests."""
    ends = time.monotonic() + REST
    measured = [measure(faces)]
    while time.monotonic() < ends:
        time.sleep(REST / 10)
        measured.append(measure(faces))
    return Measured(*(min(getattr(one, field.name) for one in measured) for field in dataclasses.fields(Measured)))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Steady load with mixed faults; what is held in the end is what was.")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=float, default=RATE, help="turns a second")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()

    def progress(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    soaked = soak(60 * options.minutes, options.rate, options.seed, progress)
    result = {
        "seed": options.seed,
        "minutes": options.minutes,
        **soaked.counts,
        "before": dataclasses.asdict(soaked.before),
        "after": dataclasses.asdict(soaked.after),
        "grown": soaked.grown,
    }
    sys.stdout.write("\n".join([json.dumps(result), *soaked.wrong, ""]))
    return int(bool(soaked.grown or soaked.wrong))


if __name__ == "__main__":
    sys.exit(main())
