"""The command line as a program of its own: started, watched without polling, and sent signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

import unbroken
from waiting import wait_until_asleep

PATIENCE = 60.0
UNBROKEN = (sys.executable, "-m", "unbroken")
SOURCES = str(Path(unbroken.__file__).parents[1])


@dataclass(frozen=True)
class Ended:
    """What came of a program."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    """The fixture ``cli``: runs a command line in this process."""

    def __call__(self, *args: str, **variables: str) -> Ended: ...


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has nothing set but what the test sets."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": SOURCES,
        "PYTHONWARNINGS": "error",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        **{name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},  # Windows starts nothing without
        **variables,
    }


def untimed(said: str) -> str:
    """What a program said, with 0.0 s for how long a failure took: how long is up to the machine."""
    return re.sub(r" after \d+\.\d s", " after 0.0 s", said)


def run(*args: str, env: Mapping[str, str], stdin: bytes | int = b"", timeout: float = 60) -> Ended:
    """Run ``unbroken`` to its end, with these bytes, or what a descriptor leads to, as its stdin."""
    source: dict[str, Any] = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
    ran = subprocess.run(
        [*UNBROKEN, *args], env=env, cwd=env["HOME"], capture_output=True, timeout=timeout, check=False, **source
    )
    return Ended(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def shell(script: str, *, env: Mapping[str, str]) -> Ended:
    """Run a script of bash, in which ``unbroken`` is the program."""
    command = f'unbroken() {{ "{sys.executable}" -m unbroken "$@"; }}\n{script}'
    ran = subprocess.run(
        ["bash", "-c", command],
        env=env,
        cwd=env["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Ended(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


class Heard:
    """Bytes that come from a program, collected on a thread of their own."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._data = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._collect, daemon=True).start()

    @property
    def data(self) -> bytes:
        with self._changed:
            return bytes(self._data)

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    def wait_for(self, words: str, timeout: float = PATIENCE) -> str:
        """Wait until ``words`` have come; return all that has."""
        wanted = words.encode()
        with self._changed:
            self._changed.wait_for(lambda: wanted in self._data or self._ended, timeout)
            assert wanted in self._data, f"{words!r} never came, but {bytes(self._data)!r}"
            return self._data.decode(errors="replace")

    def wait_for_end(self, timeout: float = PATIENCE) -> bytes:
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, timeout), "it never ended"
            return bytes(self._data)

    def _collect(self) -> None:
        while data := self._read_some():
            with self._changed:
                self._data += data
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_some(self) -> bytes:
        try:
            return self._read()
        except OSError:  # EIO: the last program on a pseudo terminal has left
            return b""


class Program:
    """A running ``unbroken``, as a context manager."""

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        prefix: Sequence[str] = (),
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, *UNBROKEN, *args], env=env, cwd=env["HOME"], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
        self.out = _heard(self._process.stdout)
        self.err = _heard(self._process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def write(self, data: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_stdin(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal and wait for the end; return how long that took."""
        sent = time.monotonic()
        self.send(number)
        self.err.wait_for_end()  # a wait for the process with a timeout would poll
        return time.monotonic() - sent

    def wait_until_asleep(self) -> None:
        """Wait until nothing moves in it."""
        wait_until_asleep(self._process.pid)

    def wait(self) -> int:
        """Wait for the program itself to end, whoever else still holds its streams; return its exit code."""
        return self._process.wait(PATIENCE)

    def end(self) -> Ended:
        """Wait for the end."""
        code = self.wait()
        return Ended(code, self.out.wait_for_end().decode(), self.err.wait_for_end().decode())


def _heard(stream: IO[bytes] | None) -> Heard:
    return Heard((lambda: stream.read1()) if stream else (lambda: b""))  # type: ignore[attr-defined]
