"""The growth side: how CPU grows with events, with an event's size, with the prelude and with streams.

Each should be a straight line. The last part drives the core alone: a large event by the size of its pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from bench import load
from bench.client import Worker, missing, worker
from bench.measure import Results, cpu, interleaved
from bench.relays import Relay, plain_relay, server, unbroken_relay
from bench.server import EVENT_BYTES

AXES: dict[str, tuple[str, str, list[int]]] = {
    "events": ("growth, events", "burst", [1000, 4000, 16000, 64000]),
    "size": ("growth, KiB of one event", "size", [64, 1024, 4096, 12288]),
    "prelude": ("growth, KiB of prelude", "prelude", [16, 128, 512, 960]),
}
"""For each the side, the server's mode, and the points."""
STREAMS = "growth, streams at once"
PIECES = "growth, bytes a piece of a 1 MiB event"
CLIENT, LOOPS = "unbroken, typed", ("sync", "asyncio")
CORE = "the core alone"
WIDTHS = [1, 10, 100, 1000]
EVENTS_A_SECOND = 1000
"""Of all streams together."""


def figure(point: int) -> str:
    """Name a point of a line."""
    return f"{point}"


def measure(results: Results, rounds: int, quick: bool) -> None:
    rounds = min(rounds, 2 if quick else 3)
    with server() as ports, contextlib.ExitStack() as running:
        relays = [running.enter_context(start(ports.http)) for start in (unbroken_relay, plain_relay)]
        workers: list[Worker] = []
        if not missing():
            workers = [running.enter_context(worker(CLIENT, loop, "http", ports)) for loop in LOOPS]
        for relay in relays:
            load.run(load.turns(relay.port, "burst-200", 1, 2))
        for each in workers:
            each.turn("burst-200")

        def relay_lines(relay: Relay) -> None:
            for side, mode, points in AXES.values():
                for point in points:
                    before = cpu(relay.pid)
                    load.run(load.turns(relay.port, model(mode, point), 1, 1))
                    results.add(side, figure(point), relay.name, (cpu(relay.pid) - before) / 1e3)
            for width in WIDTHS[: 2 if quick else None]:
                results.add(STREAMS, figure(width), relay.name, load.run(wide(relay, width)))

        def client_lines(name: str, each: Worker) -> None:
            for side, mode, points in AXES.values():
                for point in points:
                    results.add(side, figure(point), name, each.turn(model(mode, point)) / 1e3)

        runs: dict[str, Callable[[], None]] = {relay.name: partial(relay_lines, relay) for relay in relays}
        for loop, each in zip(LOOPS, workers, strict=False):
            runs[f"{CLIENT}, {loop}"] = partial(client_lines, f"{CLIENT}, {loop}", each)
        runs[CORE] = partial(pieces, results)
        interleaved(rounds, runs, "growth")


def model(mode: str, point: int) -> str:
    """Name the model that answers with a point of a line."""
    return f"{mode}-{point * 1024 if mode == 'size' else point}"


async def wide(relay: Relay, width: int) -> float:
    """Return the microseconds of CPU an event while some streams have a thousand events a second together."""
    pause = width * 1000 // EVENTS_A_SECOND
    connections = []
    for _ in range(width):
        connections.append(await load.connect(relay.port))
        connections[-1].send(f"paced-100000-{pause}")
    await asyncio.gather(*(connection.started.wait() for connection in connections))
    await asyncio.sleep(0.5)
    before, got = cpu(relay.pid), sum(connection.received for connection in connections)
    await asyncio.sleep(3)
    spent = cpu(relay.pid) - before
    events = (sum(connection.received for connection in connections) - got) / EVENT_BYTES
    for connection in connections:
        connection.close()
    await asyncio.sleep(0.2)
    return spent / events


def pieces(results: Results) -> None:
    """Feed the rule one large ending in pieces of several sizes; milliseconds of CPU of this thread."""
    from unbroken.core.attempt import Attempt, Mode
    from unbroken.core.dialect import Call, Generation
    from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
    from unbroken.core.http import Head
    from unbroken.core.policy import Policy

    first = b'data: {"type": "response.output_text.delta", "delta": "Hi"}\n\n'
    last = b'data: {"type": "response.completed", "response": {"output": [{"type": "image", "result": "%s"}]}}\n\n'
    body = first + last % (b"QUJD" * 2**18)
    for piece in (64, 1024, 4096, 65536):
        attempt = Attempt(1, Call(OPENAI_RESPONSES, Generation(streaming=True)), Policy(), 0.0)
        attempt.open(Head(200, ((b"content-type", b"text/event-stream"),)), Mode.STREAM)
        began = time.thread_time_ns()
        given = sum(len(attempt.data(body[at : at + piece])) for at in range(0, len(body), piece))
        results.add(PIECES, figure(piece), CORE, (time.thread_time_ns() - began) / 1e6)
        assert given == len(body)
