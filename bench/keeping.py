"""What it costs to keep turns for clients that come back, in memory and in Redis on a Unix socket; and two replicas.

The CPU of the relay and that of the store's process are told apart. An attached reader is a client that asks under the
key of a turn that runs; it is behind the first client by what the store and the way through it take.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.measure import Results, cpu, interleaved, percentile, process
from bench.relays import Ports, Relay, program, server, unbroken_relay

SIDE = "keeping"
READERS = "keeping, an attached reader"
REPLICAS = "replicas"

NOTHING, MEMORY, REDIS = "nothing is kept", "memory", "Redis, Unix socket"
OTHER = "Redis, by another relay"
KEEP = ("--keep", "10")

TURN, BURST, PACED = "a turn", "an event, burst", "an event, paced"
TURNS, EVENTS, SLOW_EVENTS = 100, 5000, 500
BEHIND = 0.3
"""Seconds after the last byte in which what is written behind the events is written."""

AT_ONCE = (1, 50)
"""How many readers are attached to one turn."""
WATCHED, PAUSE = 400, 5
"""How many events its readers wait for, and the milliseconds between them."""

CONNECTIONS, EACH, SHORT = 64, 25, "burst-20"
"""The turns of the replicas: on how many connections, how many on each, and which."""


class Store(NamedTuple):
    """A Redis that runs, or a Valkey."""

    url: str
    pid: int


def server_program() -> str:
    """Find the store's program; ``""`` if there is none."""
    return program("redis-server") or program("valkey-server")


@contextlib.contextmanager
def store() -> Iterator[Store]:
    """Run a Redis that keeps nothing on disk, on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = Path(folder, "redis.sock")
        nothing_else = ("--port", "0", "--save", "", "--appendonly", "no")
        with process(server_program(), "--unixsocket", socket, "--dir", folder, *nothing_else, stdout=-3) as running:
            while not socket.exists():
                time.sleep(0.02)
            yield Store(f"unix://{socket}", running.pid)


def figure(of: str, whose: str) -> str:
    return f"µs CPU {of}, {whose}"


Start = Callable[..., Relay]


@contextlib.contextmanager
def starting() -> Iterator[tuple[Start, Ports, Store | None]]:
    """Run the upstream, and a store if there is one; start relays before them, which have loaded what they need."""
    with contextlib.ExitStack() as running:
        upstream = running.enter_context(server())

        def relay(*options: str) -> Relay:
            started = running.enter_context(unbroken_relay(upstream.http, *options))
            load.run(load.turns(started.port, "burst-200", 32, 2))
            return started

        yield relay, upstream, running.enter_context(store()) if server_program() else None


def measure(results: Results, rounds: int, quick: bool) -> None:
    with starting() as (start, _, redis):
        memory = start(*KEEP)
        kept: dict[str, tuple[Relay, Store | None]] = {NOTHING: (start(), None), MEMORY: (memory, None)}
        pairs = {MEMORY: (memory, memory)}
        if redis:
            one, other = (start(*KEEP, "--store", redis.url) for _ in range(2))
            kept[REDIS] = (one, redis)
            pairs |= {REDIS: (one, one), OTHER: (one, other)}
        else:
            results.missing[REDIS] = "apt-get install redis-server"
        numbers = itertools.count()
        runs: dict[str, Callable[[], None]] = {
            name: partial(cost, results, name, *where, quick) for name, where in kept.items()
        }
        for name, (asked, attached) in pairs.items():
            runs[f"reader, {name}"] = partial(readers, results, name, asked, attached, numbers, quick)
        interleaved(rounds, runs, SIDE)


def measure_replicas(results: Results, rounds: int, quick: bool) -> None:
    with starting() as (start, upstream, redis):
        ways: dict[str, tuple[tuple[str, ...], Store | None]] = {NOTHING: ((), None)}
        if redis:
            ways[REDIS] = ((*KEEP, "--store", redis.url), redis)
        runs: dict[str, Callable[[], None]] = {}
        for name, (options, behind) in ways.items():
            both = [start(*options) for _ in range(2)]
            for relays, told in ((both[:1], "1 relay"), (both, "2 relays")):
                what = f"{told}, {name}"
                runs[what] = partial(turns_a_second, results, what, relays, behind, upstream, quick)
        interleaved(rounds, runs, REPLICAS)


def cost(results: Results, name: str, relay: Relay, behind: Store | None, quick: bool) -> None:
    """Count the CPU of a turn and of an event, of the relay and of the store."""
    pids = {"relay": relay.pid, **({"store": behind.pid} if behind else {})}

    def spent(model: str, count: int) -> dict[str, float]:
        before = {whose: cpu(pid) for whose, pid in pids.items()}
        load.run(load.turns(relay.port, model, 1, count))
        time.sleep(BEHIND)
        return {whose: cpu(pid) - before[whose] for whose, pid in pids.items()}

    turns = TURNS // 4 if quick else TURNS
    one = {whose: total / turns for whose, total in spent("burst-1", turns).items()}
    slow = SLOW_EVENTS // 2 if quick else SLOW_EVENTS
    burst, paced = spent(f"burst-{EVENTS}", 2), spent(f"paced-{slow}", 1)
    for whose, of_turn in one.items():
        results.add(SIDE, figure(TURN, whose), name, of_turn)
        results.add(SIDE, figure(BURST, whose), name, (burst[whose] - 2 * of_turn) / EVENTS / 2)
        results.add(SIDE, figure(PACED, whose), name, (paced[whose] - of_turn) / slow)


class Timed(load.Connection):
    """A connection that notes when each event came."""

    _START = b"data: "

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        seen = self._rest + data
        self.times += [time.perf_counter()] * seen.count(self._START)
        self._rest = seen[1 - len(self._START) :]
        super().data_received(data)


async def timed(port: int) -> Timed:
    """Open a connection to a relay."""
    _, protocol = await asyncio.get_running_loop().create_connection(Timed, "127.0.0.1", port)
    return protocol


def readers(results: Results, name: str, asked: Relay, attached: Relay, numbers: Iterator[int], quick: bool) -> None:
    """Measure how long after the first client the readers of its turn have each event."""
    for width in AT_ONCE[: 1 if quick else None]:
        key = f"idempotency-key: bench-{next(numbers)}\r\n".encode()
        delays = load.run(delays_of(asked.port, attached.port, width, key))
        for label, share in (("median", 0.5), ("p99", 0.99)):
            results.add(READERS, f"ms behind, {label}, {width} attached", name, percentile(delays, share) * 1e3)


async def delays_of(asked: int, attached: int, width: int, key: bytes) -> list[float]:
    """Return the seconds between each event's arrival at the first client and at each of its readers."""
    model = f"paced-{WATCHED}-{PAUSE}"
    first = await timed(asked)
    asking = asyncio.ensure_future(first.turn(model, key))
    await first.started.wait()
    await asyncio.sleep(BEHIND)  # until the store knows the turn
    others = [await timed(attached) for _ in range(width)]
    following = [asyncio.ensure_future(other.turn(model, key)) for other in others]
    await asyncio.gather(*(other.started.wait() for other in others))
    await asyncio.sleep(BEHIND)  # until they have caught up
    live = len(first.times)
    await asyncio.gather(asking, *following)
    for connection in (first, *others):
        connection.close()
    pairs = (zip(first.times[live:], other.times[live:], strict=True) for other in others)
    return [theirs - ours for pair in pairs for ours, theirs in pair]


def turns_a_second(
    results: Results, name: str, relays: list[Relay], behind: Store | None, upstream: Ports, quick: bool
) -> None:
    """Ask for turns as fast as they are answered; tell who used how much of the machine meanwhile."""
    pids = {"relays": [relay.pid for relay in relays], "upstream": [upstream.pid]}
    if behind:
        pids["store"] = [behind.pid]
    each = 4 if quick else EACH

    async def ask() -> None:
        share = CONNECTIONS // len(relays)
        await asyncio.gather(*(load.turns(relay.port, SHORT, share, each) for relay in relays))

    before = {whose: sum(map(cpu, several)) for whose, several in pids.items()}
    began, own = time.perf_counter(), time.process_time()
    load.run(ask())
    seconds = time.perf_counter() - began
    results.add(REPLICAS, "turns a second", name, CONNECTIONS * each / seconds)
    results.add(REPLICAS, cores("client"), name, (time.process_time() - own) / seconds)
    for whose, several in pids.items():
        used = sum(map(cpu, several)) - before[whose]
        results.add(REPLICAS, cores(whose), name, used / 1e6 / seconds)


def cores(whose: str) -> str:
    return f"cores used, {whose}"
