"""The recovery side: milliseconds from a reset before the first output to the arrival of the replayed request.

Both are seen by the server, on its own clock. The SDKs on their own do not replay: what they do instead is told.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable
from functools import partial

from bench import load
from bench.client import PROTOCOLS, Worker, missing, worker
from bench.measure import Results, interleaved
from bench.relays import UNBROKEN, Ports, server, told, unbroken_relay

SIDE = "recovery"
CLIENTS = [
    ("unbroken, typed", "sync"),
    ("unbroken, typed", "asyncio"),
    ("unbroken, typed", "uvloop"),
    ("openai SDK + unbroken.Transport", "sync"),
    ("anthropic SDK + unbroken.Transport", "asyncio"),
    ("openai SDK", "sync"),
    ("anthropic SDK", "asyncio"),
]
CUTS = 5
"""Cuts a round; their median is the round's value."""

numbers = itertools.count(1)


def measure(results: Results, rounds: int, quick: bool) -> None:
    for scheme in PROTOCOLS:
        with server() as ports, contextlib.ExitStack() as running:
            asks: dict[str, Callable[[], None]] = {}
            for name, loop in [] if missing() else CLIENTS:
                each = running.enter_context(worker(name, loop, scheme, ports))
                each.turn("burst-200")
                asks[f"{name}, {loop}"] = partial(ask, each)
            if scheme == "http":
                port = running.enter_context(unbroken_relay(ports.http)).port
                load.run(load.turns(port, "burst-200", 1, 1))
                asks[UNBROKEN] = partial(ask_relay, port)
            times = 2 if quick else CUTS
            runs = {name: partial(one_round, results, name, scheme, ports, cut, times) for name, cut in asks.items()}
            interleaved(rounds, runs, SIDE)


def one_round(results: Results, name: str, scheme: str, ports: Ports, cut: Callable[[], None], times: int) -> None:
    """Have a contestant cut some times."""
    for _ in range(times):
        cut()
    if seen := told(ports, "recoveries"):
        results.add(SIDE, f"ms from the cut to the request, {PROTOCOLS[scheme]}", name, statistics.median(seen))
    else:
        results.missing[f"{SIDE}: {name}"] = "does not replay; its caller gets an error"


def ask(each: Worker) -> None:
    """Ask for a turn that is cut once; a client of its own is allowed to lose it."""
    each.say(f"cut-{next(numbers)}")


def ask_relay(port: int) -> None:
    """Ask a relay for one."""
    load.run(load.turns(port, f"cut-{next(numbers)}", 1, 1))
