"""A caller that leaves ends the upstream's exchange within 100 ms, in every phase, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transports.asking import CHAT, WAYS, Way
from unbroken.lab import Fault, Upstream

pytestmark = pytest.mark.flaky(reruns=2)  # a contract in milliseconds, on a machine that others load too

LIMIT = 0.1
TRIES = 3
"""On a machine that is busy with other things once is enough."""

POINTS: dict[str, Callable[[Upstream], Any]] = {
    "before_headers": lambda upstream: upstream.requests,
    "after_role": lambda upstream: upstream.requests and b'"role"' in upstream.requests[0].sent,
    "after_token": lambda upstream: upstream.requests and b"Hello" in upstream.requests[0].sent,
}
SYNC = [way for way in WAYS if not way.is_async]
ASYNC = [way for way in WAYS if way.is_async]
in_every_phase = pytest.mark.parametrize("at", POINTS)


def has_come(upstream: Upstream, at: str) -> bool:
    return upstream.wait_for(lambda: POINTS[at](upstream), 10)


def has_left(upstream: Upstream) -> bool:
    return upstream.wait_for(lambda: upstream.requests[0].gone or upstream.requests[0].done, 10)


def latency(upstream: Upstream, left_at: float) -> float:
    """Seconds from leaving until the server knew."""
    assert has_left(upstream)
    request = upstream.requests[0]
    assert len(upstream.requests) == 1
    return (request.gone_at or request.done_at or 0.0) - left_at


def fast_enough(measure: Callable[[], float]) -> None:
    latencies = []
    for _ in range(TRIES):
        latencies.append(measure())
        if latencies[-1] < LIMIT:
            return
    pytest.fail(f"the server knew after {latencies}")


@pytest.mark.parametrize("way", ASYNC, ids=str)
@in_every_phase
def test_cancelling_a_task(way: Way, serve, at: str) -> None:
    async def leave(upstream: Upstream) -> float:
        task = asyncio.create_task(read(way, upstream))
        assert await asyncio.to_thread(has_come, upstream, at)
        left_at = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return left_at

    def measure() -> float:
        upstream = serve(Fault("stall", at))
        return latency(upstream, asyncio.run(leave(upstream)))

    fast_enough(measure)


async def read(way: Way, upstream: Upstream) -> None:
    async with (
        way.client(way.transport()) as client,
        client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response,
    ):
        async for _ in response.aiter_raw():
            pass


@pytest.mark.parametrize("way", ASYNC, ids=str)
@pytest.mark.parametrize("how", ["with", "aclose"])
def test_leaving_in_the_middle_of_an_async_stream(way: Way, serve, how: str) -> None:
    def measure() -> float:
        upstream = serve(Fault("stall", "after_token"))
        return latency(upstream, asyncio.run(leave_async(way, upstream, how)))

    fast_enough(measure)


async def leave_async(way: Way, upstream: Upstream, how: str) -> float:
    async with way.client(way.transport()) as client:
        async with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
            await anext(response.aiter_raw())
            left_at = time.monotonic()
            if how == "aclose":
                await response.aclose()
        assert await asyncio.to_thread(has_left, upstream)  # before the client closes
        return left_at


@pytest.mark.parametrize("way", SYNC, ids=str)
@pytest.mark.parametrize("how", ["with", "close"])
def test_leaving_in_the_middle_of_a_stream(way: Way, serve, how: str) -> None:
    def measure() -> float:
        upstream = serve(Fault("stall", "after_token"))
        with way.client(way.transport()) as client:
            with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
                next(response.iter_raw())
                left_at = time.monotonic()
                if how == "close":
                    response.close()
                    assert has_left(upstream)
            return latency(upstream, left_at)

    fast_enough(measure)


@pytest.mark.parametrize("way", SYNC, ids=str)
@in_every_phase
def test_ctrl_c(way: Way, serve, at: str) -> None:
    main = threading.get_ident()

    def measure() -> float:
        upstream = serve(Fault("stall", at))
        left: list[float] = []

        def press() -> None:
            assert has_come(upstream, at)
            time.sleep(0.05)  # nobody presses in the very moment in which a system call begins
            left.append(time.monotonic())
            signal.pthread_kill(main, signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        with (
            pytest.raises(KeyboardInterrupt),
            way.client(way.transport()) as client,
            client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response,
        ):
            for _ in response.iter_raw():
                pass
        presser.join()
        return latency(upstream, left[0])

    fast_enough(measure)


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("way", ASYNC, ids=str)
def test_a_thousand_cancelled_streams_leave_nothing(way: Way, serve) -> None:
    upstream = serve(*[Fault("stall", "after_token")] * 1000)

    async def leave_all() -> int:
        async with way.client(way.transport()) as client:
            before = open_files()
            for _ in range(20):
                await asyncio.gather(*(leave_one(client) for _ in range(50)))
            await asyncio.to_thread(upstream.wait_for, lambda: upstream.open_connections == 0, 10)
            await asyncio.sleep(0.05)  # the library's own generators are being finalised
            assert len(asyncio.all_tasks()) == 1
            return open_files() - before

    async def leave_one(client: Any) -> None:
        async with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
            await anext(response.aiter_raw())

    threads = threading.active_count()
    assert asyncio.run(leave_all()) <= 3  # the event loop's own, for its first thread
    assert threading.active_count() == threads
    assert len(upstream.requests) == 1000


@pytest.mark.parametrize("way", SYNC, ids=str)
def test_a_thousand_closed_streams_leave_nothing(way: Way, serve) -> None:
    upstream = serve(*[Fault("stall", "after_token")] * 1000)
    threads = threading.active_count()
    with way.client(way.transport()) as client:
        before = open_files()
        for _ in range(1000):
            with client.stream("POST", upstream.url + "/chat/completions", json=CHAT) as response:
                next(response.iter_raw())
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 10)
        assert open_files() <= before
    assert threading.active_count() == threads
    assert len(upstream.requests) == 1000
