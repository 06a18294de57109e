"""A caller that leaves ends the upstream's exchange within 100 ms, in every phase, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ctrl_c
from timing import Control
from transports.asking import CHAT, WAYS, Way
from unbroken.lab import Fault, Upstream

POINTS: dict[str, Callable[[Upstream], Any]] = {
    "before_headers": lambda upstream: upstream.requests,
    "after_role": lambda upstream: upstream.requests and b'"role"' in upstream.requests[0].sent,
    "after_token": lambda upstream: upstream.requests and b"Hello" in upstream.requests[0].sent,
}
SYNC = [way for way in WAYS if not way.is_async]
ASYNC = [way for way in WAYS if way.is_async]
STREAMS = 40
"""What one of them left behind would be there so many times."""

in_every_phase = pytest.mark.parametrize("at", POINTS)


def has_come(upstream: Upstream, at: str) -> bool:
    return upstream.wait_for(lambda: POINTS[at](upstream), 10)


def has_left(upstream: Upstream) -> bool:
    return upstream.wait_for(lambda: upstream.requests[0].gone or upstream.requests[0].done, 10)


def knew_at(upstream: Upstream) -> float | None:
    """When the server knew."""
    assert has_left(upstream)
    [request] = upstream.requests
    return request.gone_at or request.done_at


@pytest.mark.timing
@pytest.mark.parametrize("way", ASYNC, ids=str)
@in_every_phase
def test_cancelling_a_task(way: Way, serve, at: str, promptly: Control) -> None:
    upstream = serve(Fault("stall", at))

    async def leave() -> float:
        task = asyncio.create_task(read(way, upstream))
        assert await asyncio.to_thread(has_come, upstream, at)
        left_at = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return left_at

    promptly(asyncio.run(leave()), knew_at(upstream))


async def read(way: Way, upstream: Upstream) -> None:
    async with (
        way.client(way.transport()) as client,
        client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response,
    ):
        async for _ in response.aiter_raw():
            pass


@pytest.mark.timing
@pytest.mark.parametrize("way", ASYNC, ids=str)
@pytest.mark.parametrize("how", ["with", "aclose"])
def test_leaving_in_the_middle_of_an_async_stream(way: Way, serve, how: str, promptly: Control) -> None:
    upstream = serve(Fault("stall", "after_token"))
    promptly(asyncio.run(leave_async(way, upstream, how)), knew_at(upstream))


async def leave_async(way: Way, upstream: Upstream, how: str) -> float:
    async with way.client(way.transport()) as client:
        async with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
            await anext(response.aiter_raw())
            left_at = time.monotonic()
            if how == "aclose":
                await response.aclose()
        assert await asyncio.to_thread(has_left, upstream)  # before the client closes
        return left_at


@pytest.mark.timing
@pytest.mark.parametrize("way", SYNC, ids=str)
@pytest.mark.parametrize("how", ["with", "close"])
def test_leaving_in_the_middle_of_a_stream(way: Way, serve, how: str, promptly: Control) -> None:
    upstream = serve(Fault("stall", "after_token"))
    with way.client(way.transport()) as client:
        with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
            next(response.iter_raw())
            left_at = time.monotonic()
            if how == "close":
                response.close()
                assert has_left(upstream)
        promptly(left_at, knew_at(upstream))


@pytest.mark.timing
@pytest.mark.parametrize("way", SYNC, ids=str)
@in_every_phase
def test_ctrl_c(way: Way, serve, at: str, promptly: Control) -> None:
    upstream = serve(Fault("stall", at))

    def run() -> None:
        with (
            way.client(way.transport()) as client,
            client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response,
        ):
            for _ in response.iter_raw():
                pass

    promptly(ctrl_c.interrupted(run, lambda: has_come(upstream, at)), knew_at(upstream))


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("way", ASYNC, ids=str)
def test_cancelled_streams_leave_nothing(way: Way, serve) -> None:
    upstream = serve(*[Fault("stall", "after_token")] * STREAMS)

    async def leave_all() -> int:
        async with way.client(way.transport()) as client:
            before = open_files()
            for _ in range(2):
                await asyncio.gather(*(leave_one(client) for _ in range(STREAMS // 2)))
            assert await asyncio.to_thread(upstream.wait_for, lambda: upstream.open_connections == 0, 10)
            async with asyncio.timeout(10):
                while len(asyncio.all_tasks()) > 1:  # the library's own generators are being finalised
                    await asyncio.sleep(0)
            return open_files() - before

    async def leave_one(client: Any) -> None:
        async with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
            await anext(response.aiter_raw())

    threads = threading.active_count()
    assert asyncio.run(leave_all()) <= 3  # the event loop's own, for its first thread
    assert threading.active_count() == threads
    assert len(upstream.requests) == STREAMS


@pytest.mark.parametrize("way", SYNC, ids=str)
def test_closed_streams_leave_nothing(way: Way, serve) -> None:
    upstream = serve(*[Fault("stall", "after_token")] * STREAMS)
    threads = threading.active_count()
    with way.client(way.transport()) as client:
        before = open_files()
        for _ in range(STREAMS):
            with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
                next(response.iter_raw())
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 10)
        assert open_files() <= before
    assert threading.active_count() == threads
    assert len(upstream.requests) == STREAMS
