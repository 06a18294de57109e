"""What the sides share: CPU from the scheduler, processes, interleaved rounds, medians and their spread.

CPU is what the scheduler counted, in nanoseconds: the 10 ms ticks of ``/proc/PID/stat`` cannot see what a C program
spends on a turn. It is read from the process's CPU clock. The sum of ``/proc/PID/task/*/schedstat`` is the same while
no thread ends, but loses what a thread has used once it has ended: a program with short threads would look cheap.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / ".venv-bench" / "bin" / "python"
"""The interpreter of the clients that are measured: every SDK, and what Unbroken needs."""
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"


def cpu(pid: int) -> float:
    """Return the microseconds of CPU that a process has used so far, in all of its threads.

    This is the process's CPU clock (the encoding of its id is that of ``clock_getcpuclockid``).
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e3


def resident(pid: int) -> float:
    """Return the KiB of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def cpu_until_end(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return the microseconds of CPU that it used, threads that have ended included.

    The CPU clock of a zombie can still be read.
    """
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    spent = cpu(process.pid)
    if process.wait():
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return spent


Key = tuple[str, str, str]
"""Side (and group), figure with its unit, contestant."""


@dataclass
class Results:
    """What was measured.

    Attributes:
        values: for each key one value a round, in the order of the rounds.
        missing: contestants that were left out, and why.
        load: the machine's load average as each side began and ended.
    """

    values: dict[Key, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    load: dict[str, list[float]] = field(default_factory=dict)

    def add(self, side: str, figure: str, contestant: str, value: float) -> None:
        """Add the value of one round."""
        self.values.setdefault((side, figure, contestant), []).append(value)

    def ratio(self, one: Key, other: Key) -> float | None:
        """Return the median of the ratios of each round, ``None`` where one of them was not measured."""
        pairs = list(zip(self.values.get(one, []), self.values.get(other, []), strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None


@dataclass(frozen=True)
class Summary:
    """The median of some values, with their lower and upper quartile."""

    median: float
    low: float
    high: float


def summary(values: list[float]) -> Summary:
    """Summarise one figure of one contestant."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(middle, low, high)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def interleaved(rounds: int, runs: Mapping[str, Callable[[], None]], what: str) -> None:
    """Run every contestant once a round, every other round in reverse, so that noise falls on all alike."""
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(list(runs)):
            progress(f"{what}: round {number + 1} of {rounds}, {name}")
            runs[name]()


def progress(text: str) -> None:
    """Say on a terminal what is being measured."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def environment(**more: str) -> dict[str, str]:
    """Return an environment without proxies and keys of the user's own."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "_api_key"))}
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **more}


@contextlib.contextmanager
def process(*argv: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for as long as the block runs."""
    options.setdefault("env", environment())
    running: subprocess.Popen[bytes] = subprocess.Popen([str(part) for part in argv], cwd=ROOT, **options)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        for stream in (running.stdin, running.stdout, running.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def first_line(stream: IO[bytes] | None) -> str:
    """Return the first line that a process writes, which says that it is ready."""
    assert stream
    line = stream.readline().decode()
    if not line:
        raise RuntimeError("a process of the bench ended before it was ready")
    return line


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, seconds: float = 90.0) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@functools.cache
def wait_until_traced(pid: int, seconds: float = 10.0) -> None:
    """Wait until a tracer is attached to a process (proc(5), ``TracerPid``)."""
    deadline = time.monotonic() + seconds
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing traces process {pid}")
        time.sleep(0.01)


def open_files() -> int:
    """Raise the limit of open files as far as the system allows; return it."""
    import resource

    wanted = 65536
    for soft_and_hard in ((wanted, wanted), (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
