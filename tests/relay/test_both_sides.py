"""Faults on both sides at once: every client gets one whole answer or a visible error, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.serving import Served, settings_to
from unbroken.core.policy import Policy
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.fault import Fault
from unbroken.lab.upstream import Upstream
from waiting import poll

TURNS, AT_ONCE = 2000, 200
TEXT = "Nothing of this is said twice, and nothing of it is left out."
PATIENCE = 120.0
OURS = {"unbroken", "uvicorn", "httptools", "httpcore2", "h11", "asyncio", "_asyncio", "anyio"}

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


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    chance = random.Random(7)
    script = [chance.choice(FAULTS) if chance.random() < 0.6 else None for _ in range(6 * TURNS)]
    with Upstream(faults=script, answer=ScriptedAnswer(text=TEXT)) as server:
        yield server


@pytest.fixture
def served(upstream: Upstream) -> Iterator[Served]:
    policy = Policy(backoff_initial=0.01, backoff_max=0.02, retry_after_max=0.1)
    with Served(settings_to(upstream.url, policy=policy, heartbeat=0.02, grace=1.0)) as running:
        yield running


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


def settle(served: Served, upstream: Upstream) -> tuple[int, int]:
    """Wait until everybody has gone; then count the relay's tasks and this process' descriptors."""
    poll(lambda: not served.relay.recorder.live)
    for wire in served.relay._wires.values():
        served.run(wire.aclose)
    poll(lambda: not upstream.open_connections)
    poll(lambda: not served.connections)
    return served.tasks(), len(list(Path("/proc/self/fd").iterdir()))


def kept(served: Served, upstream: Upstream) -> Counter[str]:
    """The objects of this project's, the server's and asyncio's classes that Python keeps, by class.

    A turn that left anything behind would leave some of them; those of other tests may go meanwhile, and none comes.
    """
    upstream.requests.clear()
    served.entries.clear()
    gc.collect()
    kinds = [(str(type(thing).__module__), type(thing).__name__) for thing in gc.get_objects()]
    return Counter(f"{module}.{name}" for module, name in kinds if module.partition(".")[0] in OURS)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors as Linux shows them")
def test_faults_on_both_sides(served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unbroken", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)  # pytest keeps every record
    before = served.tasks()
    warm = ask_all(served.port, 600, seed=1)  # fills what is kept: the last turns, the metrics' labels
    tasks, descriptors = settle(served, upstream)
    objects = kept(served, upstream)

    got = ask_all(served.port, TURNS, seed=2)

    assert settle(served, upstream) == (tasks, descriptors)
    assert tasks <= before
    more = kept(served, upstream) - objects
    assert not {name: count for name, count in more.items() if count > TURNS / 20}, "turns are left in memory"
    assert served.relay.recorder.totals.turns == TURNS + warm.total()
    assert got["whole"] > TURNS / 4
    assert got["error"] > TURNS / 10
    assert got["left"] > TURNS / 6
