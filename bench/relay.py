"""The relay side: what stands between a program and its upstream, beside nginx, haproxy, ASGI + httpx2 and LiteLLM.

Plain HTTP/1.1 on loopback, keep-alive on both sides of the relay. CPU is the relay's process alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

from bench import load
from bench.measure import Results, cpu, interleaved, percentile, progress, resident
from bench.relays import (
    LITELLM_PROXY,
    RELAYS,
    Ports,
    Relay,
    missing,
    most_streams,
    server,
    told,
)

SIDE = "relay"
IDLE = "relay, idle streams"
PACED = "µs CPU an event, paced"
BURST = "µs CPU an event, burst"
TURN = "µs CPU a turn"
READS = "events a read, paced"
CONNECTIONS = {1: 100, 32: 10, 256: 4}
"""How many connections ask at once, and how many turns each of them asks for."""
DIRECT = "no relay, ms in all"
LEVELS = (400, 1000, 5000, min(10000, most_streams()))
"""How many idle streams are opened; a relay that stops opening them is told as left out."""


def first_byte(share: int, connections: int) -> str:
    return f"ms added to the first byte, p{share}, {connections} at once"


def memory(streams: int) -> str:
    return f"KiB a stream, {streams} open"


def at_rest(streams: int) -> str:
    return f"µs CPU a stream and second, {streams} open"


def events_of(name: str) -> int:
    """The slow one is asked for fewer events, for a round's time."""
    return 500 if name == LITELLM_PROXY else 5000


def measure(results: Results, rounds: int, quick: bool) -> None:
    results.missing |= missing()
    with contextlib.ExitStack() as running:
        upstream = running.enter_context(server()).http
        relays = [running.enter_context(start(upstream)) for name, start in RELAYS.items() if name not in missing()]
        for relay in relays:
            load.run(load.turns(relay.port, "burst-200", 32, 2))
        runs = {relay.name: partial(one_round, results, relay, quick) for relay in relays}
        runs[DIRECT] = partial(first_bytes, results, DIRECT, upstream, quick)
        interleaved(rounds, runs, SIDE)
    subtract_direct(results)
    for name, start in RELAYS.items():
        if name not in missing():
            with server() as ports, start(ports.http) as relay:
                idle_streams(results, relay, ports, quick)


def subtract_direct(results: Results) -> None:
    """Leave of each round's times to the first byte what the relay added; what is negative is noise."""
    for (side, figure, name), values in results.values.items():
        direct = results.values.get((side, figure, DIRECT), [])
        if side == SIDE and name != DIRECT and direct:
            values[:] = [value - other for value, other in zip(values, direct, strict=True)]


def one_round(results: Results, relay: Relay, quick: bool) -> None:
    before = cpu(relay.pid)
    turns = load.run(load.turns(relay.port, "burst-1", 1, CONNECTIONS[1]))
    turn = (cpu(relay.pid) - before) / len(turns)
    results.add(SIDE, TURN, relay.name, turn)
    first_bytes(results, relay.name, relay.port, quick)

    burst, paced = events_of(relay.name), 250 if quick else 500
    before = cpu(relay.pid)
    load.run(load.turns(relay.port, f"burst-{burst}", 1, 2))
    results.add(SIDE, BURST, relay.name, (cpu(relay.pid) - before - 2 * turn) / burst / 2)
    before = cpu(relay.pid)
    (slow,) = load.run(load.turns(relay.port, f"paced-{paced}", 1, 1))
    results.add(SIDE, PACED, relay.name, (cpu(relay.pid) - before - turn) / paced)
    results.add(SIDE, READS, relay.name, (paced + 2) / slow.reads)


def first_bytes(results: Results, name: str, port: int, quick: bool) -> None:
    """Time first bytes at each number of connections."""
    for connections, each in CONNECTIONS.items():
        fewer = name == LITELLM_PROXY or quick
        turns = load.run(load.turns(port, "burst-1", connections, max(1, each // 4) if fewer else each))
        for share in (50, 99):
            taken = percentile((turn.first for turn in turns), share / 100) * 1e3
            results.add(SIDE, first_byte(share, connections), name, taken)


def idle_streams(results: Results, relay: Relay, ports: Ports, quick: bool) -> None:
    """Open more and more streams that say nothing; count memory and CPU while they wait.

    A window of 15 s has one heartbeat of each stream of ours in it.
    """
    levels = LEVELS[:1] if quick else LEVELS

    async def wait() -> None:
        await begin(20)  # what is loaded with the first turns is no stream's
        empty, opened = resident(relay.pid), 0
        for level in levels:
            progress(f"{IDLE}: {relay.name}, {level} open")
            while opened < level:
                if not await begin(50):
                    results.missing[f"{relay.name}, {level} idle streams"] = f"had opened {told(ports, 'waiting')}"
                    return
                opened += 50
            await asyncio.sleep(3)
            before, held = cpu(relay.pid), resident(relay.pid)
            seconds = 15
            await asyncio.sleep(seconds)
            results.add(IDLE, at_rest(level), relay.name, (cpu(relay.pid) - before) / seconds / level)
            results.add(IDLE, memory(level), relay.name, (max(held, resident(relay.pid)) - empty) / level)
        for connection in kept:
            connection.close()

    kept: list[load.Connection] = []

    async def begin(count: int) -> bool:
        """Open streams; return whether the server has them all within 30 s. Some relays hand on nothing yet."""
        wanted = len(kept) + count
        for connection in await asyncio.gather(*[load.connect(relay.port) for _ in range(count)]):
            connection.send("idle-0")
            kept.append(connection)
        deadline = time.monotonic() + 30
        while told(ports, "waiting") < wanted:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    load.run(wait())
