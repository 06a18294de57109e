"""Ports for servers that a test starts itself, and for what is to be refused."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST = 20_000, 32_000
"""Below the ports that a system picks for whoever binds port 0, or connects: nobody gets one by chance."""

WORKERS = 16
"""Those of pytest-xdist have ports of their own, each so many-th part of all."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", f"gw{WORKERS - 1}").removeprefix("gw")) % WORKERS
_ports = itertools.cycle(range(FIRST + _worker, LAST, WORKERS))
for _ in range(os.getpid() % 500):  # beside another run of the tests
    next(_ports)


def free_port() -> int:
    """Return a port that nobody listens on, each time another one."""
    for port in itertools.islice(_ports, LAST - FIRST):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError(f"no port from {FIRST} to {LAST} is free")
