"""Tell what bounds the relays' figures: python -m bench.bounds [RELAY ...].

For each relay, per event that is paced: its CPU in user mode and in the kernel, and its system calls (by strace, if it
is installed, in a run of its own). An event cannot cost less than the system calls that carry it.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import load
from bench.measure import wait_until_traced
from bench.relays import ASGI, NGINX, RELAYS, UNBROKEN, Relay, server

EVENTS = 3000
_CALL = re.compile(r"^\d+ +(\w+)\(", re.M)


def modes(pid: int) -> tuple[float, float]:
    """Return the microseconds in user mode and in the kernel, in ticks of the system (proc(5), ``/proc/pid/stat``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = 1e6 / os.sysconf("SC_CLK_TCK")
    return int(fields[11]) * tick, int(fields[12]) * tick


def system_calls(relay: Relay, events: int) -> dict[str, float]:
    """Count the system calls per event; nothing without strace."""
    program = shutil.which("strace")
    if program is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        trace = Path(folder) / "trace"
        tracing = subprocess.Popen([program, "-f", "-p", str(relay.pid), "-o", trace], stderr=subprocess.DEVNULL)
        wait_until_traced(relay.pid)
        load.run(load.turns(relay.port, f"paced-{events}", 1, 1))
        tracing.send_signal(signal.SIGINT)
        tracing.wait()
        counts = collections.Counter(_CALL.findall(trace.read_text()))
    return {name: count / events for name, count in counts.most_common() if count >= events / 4}


def main() -> None:
    """Measure the relays that are named, or those of the goals."""
    for name in sys.argv[1:] or [UNBROKEN, ASGI, NGINX]:
        with server() as ports, RELAYS[name](ports.http) as relay:
            load.run(load.turns(relay.port, "burst-200", 1, 3))
            before = modes(relay.pid)
            load.run(load.turns(relay.port, f"paced-{EVENTS}", 1, 1))
            user, kernel = (after - start for after, start in zip(modes(relay.pid), before, strict=True))
            calls = ", ".join(f"{name} {count:.1f}" for name, count in system_calls(relay, 200).items())
            print(f"{name}: {user / EVENTS:.0f} µs in user mode, {kernel / EVENTS:.0f} µs in the kernel; {calls}")


if __name__ == "__main__":
    main()
