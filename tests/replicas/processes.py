"""Relays as processes of their own with one store between them: killed, stopped, started again, and looked into.

What a relay has open is read from /proc, and told by what it leads to; Linux only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cli.programs import SOURCES
from ports import free_port
from relay.redis_server import RedisServer

START_WITHIN = 60.0
SETTLED = 0.1
ESTABLISHED = "01"
"""In /proc/net/tcp (proc(5))."""

PROGRAM = """
import asyncio, gc, signal, sys
from unbroken.cli import main
from unbroken.relay.kept import keeper
from unbroken.relay.settings import Settings
from unbroken.relay.store.redis_store import RedisStore

def tell(*_):
    tasks = [one for one in gc.get_objects() if isinstance(one, asyncio.Task) and not one.done()]
    print(f"tasks {len(tasks)}", file=sys.stderr, flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    Settings.__init__.__kwdefaults__["lease"] = float(sys.argv.pop(1))
    keeper.ASK_WITHIN = patience = float(sys.argv.pop(1))
    RedisStore.__init__.__kwdefaults__["answer_within"] = patience
    main()
"""
"""``unbroken relay`` with another lease, and with more patience with a store on a machine that is busy with all of
this; at SIGUSR1 it says how many tasks it has."""


@dataclass(frozen=True)
class Census:
    """What a relay has.

    Attributes:
        tasks: of its event loop.
        clients: connections of clients.
        store: connections to the store.
        upstream: connections to upstreams; some are kept for the next turns.
        other: whatever else is open.
    """

    tasks: int
    clients: int
    store: int
    upstream: int
    other: int


class Replica:
    """One relay, at one port, in one process after the other.

    Args:
        number: of the relay.
        folder: for its log.
        lease: seconds for which it holds a turn.
        ask_within: seconds for which a request waits for the store.
        options: of ``unbroken relay``.

    Attributes:
        port: where it listens.
        incarnation: which of its processes runs: the first is 1.
        deaths: when each of its processes was killed.
    """

    def __init__(self, number: int, folder: Path, lease: float, ask_within: float, options: list[str]) -> None:
        self.number = number
        self.port = free_port()
        self.incarnation = 0
        self.deaths: list[float] = []
        self._log = folder / f"relay-{number}.log"
        script = folder / "relay.py"
        script.write_text(PROGRAM, encoding="utf-8")
        settled = ["relay", "--port", str(self.port), "--log-format", "json", *options]
        self._command = [sys.executable, str(script), str(lease), str(ask_within), *settled]
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._environ = {**environ, "UNBROKEN_CONFIG": os.devnull, "PYTHONPATH": SOURCES}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def said(self) -> str:
        """Its log, of all its processes."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it, and wait until it serves. While the store is away it does not start: it is tried again."""
        deadline = time.monotonic() + START_WITHIN
        while not self._started():
            if time.monotonic() > deadline:
                raise RuntimeError(f"relay {self.number} does not start: {self.said[-2000:]}")
            time.sleep(SETTLED)
        self.incarnation += 1

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self.deaths.append(time.monotonic())
        self.close()

    def close(self) -> None:
        """End it. May be called again."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if self._output:
            self._output.close()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def census(self, store: int, upstreams: set[int]) -> Census:
        """Count what it has open.

        Args:
            store: the port of the store.
            upstreams: the ports of the upstreams.
        """
        links = [_link(file) for file in Path(f"/proc/{self.pid}/fd").iterdir()]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        found = {"clients": 0, "store": 0, "upstream": 0}
        for local, remote, state, inode in _connections(self.pid):
            if inode not in inodes or remote == 0:
                continue
            if local == self.port:
                found["clients"] += state == ESTABLISHED
            elif remote == store:
                found["store"] += 1
            elif remote in upstreams:
                found["upstream"] += 1
        return Census(self._tasks(), **found, other=len(links) - sum(found.values()))

    def ports_to(self, remote: int) -> set[int]:
        """Return its own ends of its connections to a port."""
        inodes = {_link(file)[8:-1] for file in Path(f"/proc/{self.pid}/fd").iterdir()}
        return {local for local, there, _, inode in _connections(self.pid) if there == remote and inode in inodes}

    def _tasks(self) -> int:
        before = self.said.count("\ntasks ")
        self.send(signal.SIGUSR1)
        deadline = time.monotonic() + START_WITHIN
        while (told := self.said).count("\ntasks ") == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"relay {self.number} does not say how many tasks it has")
            time.sleep(SETTLED)
        return int(re.findall(r"\ntasks (\d+)\n", told)[-1])

    def _started(self) -> bool:
        """Start a process; return whether it has begun to serve, and not ended instead."""
        at = self._log.stat().st_size if self._log.exists() else 0
        self.close()
        self._output = self._log.open("ab")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._output, env=self._environ
        )
        while self._process.poll() is None:
            if b"listening on" in self._log.read_bytes()[at:] and _accepts(self.port):
                return True
            time.sleep(SETTLED)
        return False


class Redis(RedisServer):
    """A real Redis of its own, on a port besides its Unix socket: there it says who is connected."""

    def __init__(self) -> None:
        self.port = free_port()
        super().__init__("--port", str(self.port), "--maxclients", "10000")

    def clients(self) -> set[int]:
        """The ends of the connections that it has on its port, as CLIENT LIST says."""
        told = self.ask("CLIENT", "LIST").decode()
        return {int(port) for port in re.findall(r" addr=127\.0\.0\.1:(\d+) ", told)}

    def without_expiry(self) -> list[str]:
        """Return the keys that would stay for ever."""
        return [name for name in self.known() if self.ask("PTTL", name).startswith(b":-1\r")]


def is_possible() -> bool:
    """Return whether everything that it takes is here."""
    return sys.platform == "linux" and bool(shutil.which("redis-server") or shutil.which("valkey-server"))


def _connections(pid: int) -> Iterator[tuple[int, int, str, str]]:
    """Return of each TCP connection both ports, its state and its inode (proc(5), ``/proc/net/tcp``)."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16), fields[3], fields[9]


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # it was closed meanwhile
        return ""


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def outcomes(replica: Replica) -> list[str]:
    """Return how the requests of a relay ended, as its log says."""
    entries = [json.loads(line) for line in replica.said.splitlines() if line.startswith('{"')]
    return [entry["outcome"] for entry in entries if "outcome" in entry]
