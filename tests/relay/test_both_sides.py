"""Faults on both sides at once: every client gets one whole answer or a visible error, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from unbroken.core.policy import Policy
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.fault import Fault
from unbroken.lab.upstream import Upstream
from unbroken.relay.app import Relay
from unbroken.relay.server import DrainingServer, listen, make_server
from unbroken.relay.settings import Settings, UpstreamSettings

TURNS, AT_ONCE = 2000, 200
TEXT = "Nothing of this is said twice, and nothing of it is left out."
PATIENCE = 120.0

FAULTS = [
    Fault(kind, at)
    for kind in ("rst", "fin", "clean_end", "truncated_chunk", "bad_chunk", "error_event", "malformed")
    for at in ("after_headers", "after_role", "after_token", "after_finish")
] + [
    Fault("rst", "connect"),
    Fault("rst", "before_headers"),
    Fault("fin", "before_headers"),
    Fault("status", "before_headers", status=503),
    Fault("status", "before_headers", status=400),
    Fault("stall", "after_role", seconds=0.05),
    Fault("stall", "after_token", seconds=0.05),
]

ASKED = {
    "/v1/chat/completions": {"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]},
    "/v1/responses": {"model": "m", "stream": True, "input": "?"},
    "/v1/messages": {"model": "m", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]},
}


@dataclass
class Running:
    """A relay on a thread of this process, whose inside can be counted."""

    relay: Relay
    server: DrainingServer
    port: int
    loop: asyncio.AbstractEventLoop

    def tasks(self) -> int:
        """How many tasks its event loop has."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    chance = random.Random(7)
    script = [chance.choice(FAULTS) if chance.random() < 0.6 else None for _ in range(6 * TURNS)]
    with Upstream(faults=script, answer=ScriptedAnswer(text=TEXT)) as server:
        yield server


@pytest.fixture
def running(upstream: Upstream) -> Iterator[Running]:
    policy = Policy(backoff_initial=0.01, backoff_max=0.02, retry_after_max=0.1)
    settings = Settings(
        upstreams={"lab": UpstreamSettings("lab", upstream.url)}, default="lab", policy=policy, heartbeat=0.02, grace=1
    )
    relay = Relay(settings)
    server = make_server(relay, settings)
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        ready.set()
        await server.serve(sockets=[sock])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield Running(relay, server, port, loops[0])
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


async def ask(port: int, path: str, leave_after: int | None) -> str:
    """Ask once, as a client that may leave after so many bytes; what it got, in one word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(ASKED[path]).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    try:
        if leave_after is not None:
            await reader.read(leave_after) if leave_after else None
            writer.transport.abort()
            return "left"
        return judge(path, await reader.read())
    finally:
        writer.close()


def judge(path: str, received: bytes) -> str:
    """What a careful client makes of a response: ``whole``, ``error``; anything else is a lie."""
    head, _, rest = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if status != 200:
        assert error_in(json.loads(rest)), rest
        return "error"
    body, ended = unchunked(rest)
    try:
        events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    except json.JSONDecodeError:  # after output a malformed event goes through: a client sees that for itself
        return "error"
    said = "".join(text_of(path, event) for event in events)
    assert TEXT.startswith(said), "something was said twice, left out or altered"
    if any(error_in(event) for event in events):
        return "error"
    assert ended, "the body was broken off, and nothing said why"
    assert said == TEXT, "an answer that is not whole was passed off as one"
    return "whole"


def unchunked(rest: bytes) -> tuple[bytes, bool]:
    """The body, and whether its last chunk came."""
    body = b""
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        size = int(length, 16)
        if not size:
            return body, True
        body, rest = body + rest[:size], rest[size + 2 :]
    return body, False


def text_of(path: str, event: dict) -> str:
    if path.endswith("chat/completions"):
        return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", []))
    if path.endswith("responses"):
        return event["delta"] if event["type"] == "response.output_text.delta" else ""
    return event["delta"].get("text", "") if event["type"] == "content_block_delta" else ""


def error_in(event: dict) -> bool:
    return bool(event.get("error")) or event.get("type") in ("error", "response.failed")


def ask_all(port: int, turns: int, seed: int) -> Counter[str]:
    chance = random.Random(seed)
    leaving = [chance.choice((0, 1, 150, 400, 900)) if chance.random() < 0.25 else None for _ in range(turns)]
    paths = [chance.choice(list(ASKED)) for _ in range(turns)]

    async def run() -> Counter[str]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(path: str, leave_after: int | None) -> str:
            async with places:
                return await ask(port, path, leave_after)

        async with asyncio.timeout(PATIENCE):
            return Counter(await asyncio.gather(*(one(*turn) for turn in zip(paths, leaving, strict=True))))

    return asyncio.run(run())


def until(happened: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def settle(running: Running, upstream: Upstream) -> tuple[int, int]:
    """Wait until everybody has gone; then count the relay's tasks and this process' descriptors."""
    until(lambda: not running.relay.recorder.live, "turns are left")
    for wire in running.relay._wires.values():
        asyncio.run_coroutine_threadsafe(wire.aclose(), running.loop).result(10)
    until(lambda: not upstream.open_connections, "connections to the upstream are left")
    until(lambda: not running.server.server_state.connections, "connections of clients are left")
    return running.tasks(), len(list(Path("/proc/self/fd").iterdir()))


def count_objects(upstream: Upstream) -> int:
    """How many objects Python keeps; a turn that left anything behind would leave dozens."""
    upstream.requests.clear()
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors as Linux shows them")
def test_faults_on_both_sides(running: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unbroken", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)  # pytest keeps every record
    before = running.tasks()
    warm = ask_all(running.port, 600, seed=1)  # fills what is kept: the last turns, the metrics' labels
    tasks, descriptors = settle(running, upstream)
    objects = count_objects(upstream)

    got = ask_all(running.port, TURNS, seed=2)

    assert settle(running, upstream) == (tasks, descriptors)
    assert tasks <= before
    # A turn is dozens of objects. Alone this grows by a few; among other tests in one process theirs come and go.
    assert count_objects(upstream) - objects < 3 * TURNS, "memory is left behind"
    assert running.relay.recorder.totals.turns == TURNS + warm.total()
    assert got["whole"] > TURNS / 4
    assert got["error"] > TURNS / 10
    assert got["left"] > TURNS / 6
