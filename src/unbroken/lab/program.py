"""Programs that run for a limited time, each with its whole process group, and whose output is kept up to a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self

OUTPUT_LIMIT = 256 * 1024
"""Bytes that are kept of each of a program's streams; the rest is read and dropped."""

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL at the end of a program's time."""

_LAST_BYTES = 5.0
"""Seconds for what is still in a program's pipes at its end."""


@dataclass(frozen=True)
class ProgramRun:
    """What a program did.

    Attributes:
        exit_code: its exit code, 128 + n if signal n ended it; None: its time was over, and it was ended.
        stdout: what it wrote, at most `OUTPUT_LIMIT` bytes of it.
        stderr: likewise.
        seconds: how long it ran.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float


class Programs:
    """A context that runs programs, from several threads; none of them, nor what they have started, outlives it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every program that runs, and start none any more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _end_group(process, force=True)

    def run(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> ProgramRun:
        """Run a program, without input, to its end.

        Args:
            argv: its file and its arguments.
            environ: its environment.
            timeout: seconds after which it is ended, with its process group.

        Raises:
            OSError: the system refuses to run it.
            RuntimeError: this context was closed.
        """
        started = time.monotonic()
        process = self._start(argv, environ)
        streams = [_KeptOutput(process.stdout), _KeptOutput(process.stderr)]
        code: int | None = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end_group(process, force=False)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        finally:
            seconds = time.monotonic() - started
            _end_group(process, force=True)  # also what it has left behind
            process.wait()
            with self._lock:
                self._running.discard(process)
        stdout, stderr = (stream.text() for stream in streams)
        return ProgramRun(128 - code if code is not None and code < 0 else code, stdout, stderr, seconds)

    def _start(self, argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise RuntimeError("no program is started any more")
            process = subprocess.Popen(
                argv,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **_group_of_its_own(),
            )
            self._running.add(process)
        return process


class _KeptOutput:
    """The beginning of what comes through a pipe. All of it is read, so that the program is not stopped by it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return what has come, when the pipe has ended, or if something that was left behind keeps it open."""
        self._thread.join(_LAST_BYTES)
        return bytes(self._data).decode(errors="replace")

    def _read(self) -> None:
        with self._pipe, suppress(OSError):
            while data := os.read(self._pipe.fileno(), 64 * 1024):
                self._data += data[: OUTPUT_LIMIT - len(self._data)]


def _group_of_its_own() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end_group(process: subprocess.Popen[bytes], *, force: bool) -> None:
    """End a program and everything in its process group; on Windows, everything that it has started."""
    if sys.platform == "win32":
        if force and process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
