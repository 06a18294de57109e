"""A real Redis of the test's own, on a Unix socket; it is ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from waiting import poll

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A Redis that keeps nothing on disk.

    Args:
        args: further arguments.

    Attributes:
        url: as ``--store`` takes it.
    """

    def __init__(self, *args: str) -> None:
        if PROGRAM is None:
            if os.environ.get("UNBROKEN_REQUIRE_REAL"):
                pytest.fail("redis-server is not installed")
            pytest.skip("redis-server is not installed")
        self._args = args
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-")))
        self.path = self.folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._stack.close()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        where = ["--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)]
        command = [str(PROGRAM), *where, "--save", "", "--appendonly", "no", *self._args]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        poll(self._answers)

    def stop(self) -> None:
        """End it at once, with all it knows. May be called again."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Stop it, so that it accepts connections and does not answer."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> bytes:
        """Send a command; return its answer as it comes, up to 64 KiB."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            sock.sendall(command(*words))
            return sock.recv(65536)

    def known(self) -> set[str]:
        """What it knows."""
        return {word.decode() for word in self.ask("KEYS", "*").split(b"\r\n") if word and word[:1] not in b"*$"}

    def everything(self) -> bytes:
        """Whatever it has under all keys, as it dumps it."""
        assert self.ask("CONFIG", "SET", "rdbcompression", "no") == b"+OK\r\n"
        assert self.ask("SAVE") == b"+OK\r\n"
        return (self.folder / "dump.rdb").read_bytes()

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def command(*words: str) -> bytes:
    """A command as it is sent."""
    parts = [b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(parts)
