"""What the relay costs, beside what you would use instead.

    python bench/relay.py [--rounds 5] [--events 5000] [--open 5000]

CPU of each relay's process per event and for each turn, medians of interleaved rounds over plain HTTP/1.1 on loopback,
and the time that it adds until the first byte; then many open silent streams at once: memory for each, and CPU while
nothing happens. nginx is the floor: C, and no rule. Machines are noisy: read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BODY = json.dumps({"model": "bench", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
AT_REST = 20.0
"""Seconds for which open streams are watched; a heartbeat of the relay (every 15 s) falls into them."""

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""


@dataclass
class Contestant:
    """A relay that runs.

    Attributes:
        name: what it is called.
        port: where it listens.
        pid: the process that does the work.
    """

    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.contextmanager
def process(*argv: str, **options) -> Iterator[subprocess.Popen]:
    running = subprocess.Popen(argv, text=True, **options)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def contestants() -> Iterator[tuple[int, list[Contestant]]]:
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        server = start(process(sys.executable, str(HERE / "server.py"), stdout=subprocess.PIPE))
        upstream = int(server.stdout.readline())
        ours = [sys.executable, "-m", "unbroken", "relay", "--port", "0", "--log-format", "none", "--no-proxy"]
        ours += ["--max-turns", "20000", "--default", "bench"]
        for mode in ("burst", "paced", "idle"):
            ours += ["--upstream", f"{mode}=http://127.0.0.1:{upstream}/{mode}"]
        ours += ["--upstream", f"bench=http://127.0.0.1:{upstream}"]
        relay = start(process(*ours, stderr=subprocess.PIPE))
        found = [Contestant("unbroken relay", int(relay.stderr.readline().rpartition(":")[2]), relay.pid)]
        plain = start(process(sys.executable, str(HERE / "plain_relay.py"), str(upstream), stdout=subprocess.PIPE))
        found.append(Contestant("ASGI + httpx2", int(plain.stdout.readline()), plain.pid))
        if nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx"):
            found.append(start(nginx_relay(nginx, upstream)))
        yield upstream, found


@contextlib.contextmanager
def nginx_relay(program: str, upstream: int) -> Iterator[Contestant]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
        with process(program, "-c", str(config), "-p", folder) as master:
            children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
            deadline = time.monotonic() + 10
            while not (workers := children.read_text().split()) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield Contestant("nginx", port, int(workers[0]))


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


async def ask(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float]:
    """Begin a turn; return once its first bytes are there, with the seconds that took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % (path.encode(), len(BODY)) + BODY
    )
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(1)
    return reader, writer, time.perf_counter() - began


async def turn(port: int, path: str) -> float:
    """A whole turn; the seconds until its first byte."""
    reader, writer, first = await ask(port, path)
    last = b""
    while not last.endswith(b"0\r\n\r\n"):
        data = await reader.read(1 << 16)
        assert data, "the turn is not whole"
        last = (last + data)[-16:]
    writer.close()
    return first


def path_of(mode: str, events: int) -> str:
    return f"/{mode}/{events}/v1/chat/completions"


def per_event(relay: Contestant, mode: str, events: int) -> float:
    """CPU in microseconds."""
    before = relay.cpu()
    asyncio.run(turn(relay.port, path_of(mode, events)))
    return (relay.cpu() - before) / events * 1e6


def per_turn(relay: Contestant, turns: int = 200) -> float:
    """CPU in milliseconds of a turn of one event."""

    async def many() -> None:
        for _ in range(turns):
            await turn(relay.port, path_of("burst", 0))

    before = relay.cpu()
    asyncio.run(many())
    return (relay.cpu() - before) / turns * 1e3


def first_byte(port: int, turns: int = 50) -> float:
    """Milliseconds until the first byte, the median."""

    async def many() -> list[float]:
        return [await turn(port, path_of("burst", 0)) for _ in range(turns)]

    return statistics.median(asyncio.run(many())) * 1e3


def open_streams(relay: Contestant, count: int) -> tuple[float, float]:
    """Memory of an open silent stream in KiB, and CPU at rest in percent of a core."""

    async def measure() -> tuple[float, float]:
        before = relay.memory()
        streams = []
        for _ in range(0, count, 50):
            # Our relay holds the prelude: its first byte is the first heartbeat's.
            streams += await asyncio.gather(*(begin(relay.port) for _ in range(50)))
        await asyncio.sleep(AT_REST)
        memory, cpu = relay.memory(), relay.cpu()
        await asyncio.sleep(AT_REST)
        rest = (relay.cpu() - cpu) / AT_REST * 100
        for _, writer in streams:
            writer.close()
        return (memory - before) / count / 1024, rest

    return asyncio.run(measure())


async def begin(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask, and wait for nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % (path_of("idle", 0).encode(), len(BODY)) + BODY)
    await writer.drain()
    return reader, writer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--open", type=int, default=5000)
    options = parser.parse_args()
    with contestants() as (upstream, relays):
        figures: dict[str, dict[str, list[float]]] = {relay.name: {} for relay in relays}
        for _ in range(options.rounds):
            direct = first_byte(upstream)
            for relay in relays:
                noted = figures[relay.name]
                noted.setdefault("us/event, burst", []).append(per_event(relay, "burst", options.events))
                noted.setdefault("us/event, paced", []).append(per_event(relay, "paced", options.events // 5))
                noted.setdefault("CPU ms/turn", []).append(per_turn(relay))
                noted.setdefault("ms to first byte", []).append(first_byte(relay.port) - direct)
        for relay in relays:
            memory, rest = open_streams(relay, options.open)
            figures[relay.name] |= {f"KiB/stream, {options.open} open": [memory], "CPU % at rest": [rest]}
    show(figures)


def show(figures: dict[str, dict[str, list[float]]]) -> None:
    ours = figures["unbroken relay"]
    print(f"{'':32}" + "".join(f"{name:>24}" for name in figures))
    for figure, values in ours.items():
        base = statistics.median(values)
        cells = []
        for noted in figures.values():
            value = statistics.median(noted[figure])
            cells.append(f"{value:.2f} ({value / base:.2f}x)" if base else f"{value:.2f}")
        print(f"{figure:32}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
