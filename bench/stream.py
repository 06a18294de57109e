"""What a streamed turn costs, beside what you would use instead.

    python bench/stream.py [--rounds 5] [--events 5000]

CPU of the client's process per event, medians of interleaved rounds over plain HTTP/1.1 on loopback; then the memory of
many open streams, each contestant in a process of its own. Machines are noisy: read the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
from openai._streaming import SSEDecoder

import unbroken
from server import TOKEN
from unbroken.core.dialects import recognise
from unbroken.core.failures import Phase
from unbroken.core.http import Request
from unbroken.core.sse import Parser
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.synchronous import Driver
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.http import HttpWire

BODY = {"model": "bench", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
OPEN_STREAMS = 300


@contextlib.contextmanager
def server() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "server.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def contestants(url: str) -> dict[str, Callable[[], None]]:
    wire = HttpWire(proxy="")
    ours = unbroken.Client(base_url=url, proxy="")
    plain = httpx2.Client(trust_env=False)
    sdk = openai.OpenAI(base_url=url, api_key="none", http_client=httpx2.Client(trust_env=False))

    def driver_bytes() -> None:
        request = Request("POST", f"{url}/chat/completions", body=json.dumps(BODY).encode())
        call = recognise(request)
        assert call
        with Driver(wire, request, call, unbroken.Policy()) as driver:
            driver.open()
            for _ in driver:
                pass

    def client_events() -> None:
        with ours.stream("Hello", model="bench") as turn:
            for _ in turn:
                pass

    def httpx2_bytes() -> None:
        with plain.stream("POST", f"{url}/chat/completions", json=BODY) as response:
            for _ in response.iter_raw():
                pass

    def openai_events() -> None:
        for _ in sdk.chat.completions.create(**BODY):  # type: ignore[call-overload]
            pass

    return {
        "httpx2, bytes": httpx2_bytes,
        "unbroken driver, bytes": driver_bytes,
        "unbroken client, events": client_events,
        "openai SDK, events": openai_events,
    }


def cpu_of(run: Callable[[], None]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def compare_streams(port: int, mode: str, events: int, rounds: int) -> None:
    runs = contestants(f"http://127.0.0.1:{port}/{mode}/{events}/v1")
    for run in runs.values():
        run()
    costs: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            costs[name].append(cpu_of(run) / events * 1e6)
    base = statistics.median(costs["httpx2, bytes"])
    print(f"\n{mode}, {events} events of {len(TOKEN)} bytes, {rounds} rounds")
    for name, values in costs.items():
        middle = statistics.median(values)
        print(f"  {name:26} {middle:8.1f} us/event   {middle / base:6.2f} x httpx2")


def compare_parsers(rounds: int) -> None:
    data = TOKEN * 20_000
    chunks = [data[i : i + 16384] for i in range(0, len(data), 16384)]

    def ours() -> None:
        parser = Parser()
        for piece in chunks:
            for _ in parser.feed(piece):
                pass

    def theirs() -> None:
        for _ in SSEDecoder().iter_bytes(iter(chunks)):
            pass

    speeds: dict[str, list[float]] = {"unbroken": [], "openai SDK": []}
    for _ in range(rounds):
        speeds["unbroken"].append(len(data) / cpu_of(ours) / 1e6)
        speeds["openai SDK"].append(len(data) / cpu_of(theirs) / 1e6)
    fast, slow = (statistics.median(speeds[name]) for name in ("unbroken", "openai SDK"))
    print(f"\nSSE parsing: unbroken {fast:.0f} MB/s, openai SDK {slow:.0f} MB/s, ratio {fast / slow:.1f}")


async def hold_open(who: str, url: str) -> None:
    """Hold streams open, and print the memory that each one took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if who == "unbroken":
        wire = AsyncHttpWire(proxy="")
        request = Request("POST", f"{url}/chat/completions", body=json.dumps(BODY).encode())
        call = recognise(request)
        assert call
        turns = [AsyncDriver(wire, request, call, unbroken.Policy()) for _ in range(OPEN_STREAMS)]
        waiting = [asyncio.create_task(turn.open()) for turn in turns]
        while not all(turn.phase is Phase.PRELUDE for turn in turns):  # which is held: open() goes on waiting
            await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
    else:
        sdk = openai.AsyncOpenAI(
            base_url=url,
            api_key="none",
            http_client=httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=None)),
        )
        await asyncio.gather(*(sdk.chat.completions.create(**BODY) for _ in range(OPEN_STREAMS)))  # type: ignore[call-overload]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) / OPEN_STREAMS)


def compare_memory(port: int) -> None:
    url = f"http://127.0.0.1:{port}/idle/1/v1"
    print(f"\nmemory of an open, silent stream ({OPEN_STREAMS} at once)")
    for who in ("unbroken", "openai"):
        command = [sys.executable, __file__, "--hold", who, "--url", url]
        grown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout
        print(f"  {who:10} {float(grown.split()[-1]):6.0f} KiB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--events", type=int, default=5000)
    options.add_argument("--hold", help=argparse.SUPPRESS)
    options.add_argument("--url", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.hold:
        asyncio.run(hold_open(given.hold, given.url))
        return
    with server() as port:
        compare_streams(port, "burst", given.events, given.rounds)
        compare_streams(port, "paced", given.events // 5, given.rounds)
        compare_memory(port)
    compare_parsers(given.rounds)


if __name__ == "__main__":
    main()
