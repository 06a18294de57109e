"""Ports for servers that a test starts itself, and for what is to be refused."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 20_000, 32_000
"""Below the ports that a system picks for whoever binds port 0, or connects: nobody gets one by chance."""

_LAST_GIVEN = Path(tempfile.gettempdir(), f"unbroken-test-port-{os.getuid()}")


def free_port() -> int:
    """Return a port that nobody listens on: each time another one, in whichever process, until all were given."""
    with _LAST_GIVEN.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or FIRST)
        for _ in range(FIRST, LAST):
            port = port + 1 if port + 1 < LAST else FIRST
            if _is_free(port):
                file.truncate(0)
                file.write(str(port))
                return port
    raise RuntimeError(f"no port from {FIRST} to {LAST} is free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
