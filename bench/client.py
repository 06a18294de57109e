"""The client side: what a turn costs the program that asks, beside httpx2, aiohttp and the SDKs.

Every contestant is a process of its own, which counts what it got: a turn that is not whole ends the bench.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.clients import ASYNC, NO_HTTP2, SYNC
from bench.measure import CLIENTS, Results, cpu, environment, first_line, interleaved, process, progress
from bench.relays import Ports, server
from bench.server import EVENT_BYTES

SIDE = "client"
PACED = "µs CPU an event, paced"
BURST = "µs CPU an event, burst"
PROTOCOLS = {"http": "HTTP/1.1", "https": "HTTP/2 over TLS"}
LOOPS = ("sync", "asyncio", "uvloop")


def group(loop: str, scheme: str) -> str:
    """Name a table of this side."""
    return f"{SIDE}, {loop}, {PROTOCOLS[scheme]}"


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def say(self, model: str) -> str:
        """Ask for a turn; return what the worker says of it."""
        assert self.process.stdin
        self.process.stdin.write(model.encode() + b"\n")
        self.process.stdin.flush()
        return first_line(self.process.stdout).strip()

    def turn(self, model: str) -> float:
        """Ask for a turn; return the microseconds of CPU that it took.

        Raises:
            RuntimeError: the worker did not get all of it.
        """
        before = cpu(self.process.pid)
        got = self.say(model)
        spent = cpu(self.process.pid) - before
        mode, events = model.split("-")[:2]
        wanted = int(events) if mode in ("burst", "paced") else 1
        if not got.isdecimal() or int(got) < wanted * (EVENT_BYTES if "bytes" in self.name else 1):
            raise RuntimeError(f"{self.name} got {got} of {model}")
        return spent


@contextlib.contextmanager
def worker(name: str, loop: str, scheme: str, ports: Ports) -> Iterator[Worker]:
    """Run a contestant."""
    origin = f"{scheme}://127.0.0.1:{ports.https if scheme == 'https' else ports.http}"
    command: list[str | Path] = [CLIENTS, "-m", "bench.clients", name, loop, origin, ports.ca_file]
    quiet = environment(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR")
    with process(*command, stdin=-1, stdout=-1, env=quiet) as running:
        assert first_line(running.stdout) == "ready\n"
        yield Worker(name, running)


def contestants(loop: str, scheme: str) -> list[str]:
    """Return who can be asked on this loop over this protocol."""
    return [name for name in (SYNC if loop == "sync" else ASYNC) if scheme == "http" or name not in NO_HTTP2]


def missing() -> dict[str, str]:
    """Return why there are no clients, if there are none."""
    return {} if CLIENTS.exists() else {"every client": "make .venv-bench"}


def measure(results: Results, rounds: int, quick: bool) -> None:
    results.missing |= missing()
    if missing():
        return
    burst, paced = (1000, 100) if quick else (2000, 250)
    for scheme in PROTOCOLS:
        for loop in LOOPS[:2] if quick else LOOPS:
            side = group(loop, scheme)
            with server() as ports, contextlib.ExitStack() as running:
                workers = []
                for name in contestants(loop, scheme):
                    progress(f"{side}: starting {name}")
                    workers.append(running.enter_context(worker(name, loop, scheme, ports)))
                for each in workers:
                    each.turn("burst-200")

                def one_round(each: Worker, side: str = side) -> None:
                    turn = each.turn("burst-1")
                    results.add(side, BURST, each.name, (each.turn(f"burst-{burst}") - turn) / burst)
                    results.add(side, PACED, each.name, (each.turn(f"paced-{paced}") - turn) / paced)
                    results.add(side, "µs CPU a turn", each.name, turn)

                interleaved(rounds, {each.name: partial(one_round, each) for each in workers}, side)
