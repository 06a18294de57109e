"""Several processes that serve together: who starts them, ends them, and how each of them knows of the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from unbroken import __version__
from unbroken.errors import UsageError
from unbroken.relay.app import Relay
from unbroken.relay.recorder import Snapshot, merged
from unbroken.relay.server import serve
from unbroken.relay.settings import Settings
from unbroken.relay.telemetry import AccessLog

PATIENCE = 1.0
"""Seconds that a process waits for what another one knows."""

INFANCY = 10.0
"""Seconds after its start in which a worker that fails shows that none can serve."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
_WANTED = frozenset({0, *(-number for number in _STOPPING), -9})
"""Exit codes of a worker that somebody has ended."""

_METRICS = "PROMETHEUS_MULTIPROC_DIR"


def serve_together(workers: int, settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None) -> None:
    """Serve until a signal says to stop.

    Args:
        workers: how many processes; with 1 this one serves alone.
        settings: of every relay.
        sock: a listening socket, which they share.
        log: how the access log is written, see :class:`unbroken.relay.access.AccessLog`; ``None`` for none.

    Raises:
        UsageError: several processes cannot serve together here.
    """
    if workers == 1:
        serve(_relay(settings, log), settings, sock)
        return
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        raise UsageError("--workers needs a system with Unix sockets")
    folder = Path(tempfile.mkdtemp(prefix="unbroken-"))  # readable by nobody else
    try:
        Crew(workers, settings, sock, log, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Crew:
    """Starts workers, replaces those that die, and ends them all.

    Args:
        size: how many.
        settings: see :func:`serve_together`, as the next ones.
        sock: the listening socket; closed in the end.
        log: the access log.
        folder: where they meet.
    """

    def __init__(
        self, size: int, settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None, folder: Path
    ) -> None:
        self._size = size
        self._settings = settings
        self._sock = sock
        self._log = log
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        # Nobody ever writes: it becomes readable for the workers when this end is closed, or this process is gone.
        self._stopped, self._alive = self._context.Pipe(duplex=False)
        self._workers: dict[BaseProcess, float] = {}  # when each was started

    def run(self) -> None:
        """Keep them running until a signal says to stop, and they have; a second one ends them at once.

        Raises:
            SystemExit: they cannot serve, or a second signal came.
        """
        os.environ[_METRICS] = str(self._folder)  # before the workers import prometheus-client
        try:
            with _signals() as told:
                for _ in range(self._size):
                    self._start()
                while self._workers:
                    wait([told, *(worker.sentinel for worker in self._workers)])
                    for signum in _read(told):
                        self._stop(signum)
                    self._bury()
        finally:
            self._kill()
            del os.environ[_METRICS]

    def _start(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("see serve_together")
        args = (self._settings, self._sock, self._log, self._folder, self._stopped)
        worker = self._context.Process(target=_work, args=args, daemon=False)
        # A terminal tells the workers too, but they are not to take it for themselves: what is blocked is inherited.
        resource_tracker.ensure_running()  # or it would be started now, and unblock
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            worker.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._workers[worker] = time.monotonic()

    def _bury(self) -> None:
        for worker, started in tuple(self._workers.items()):
            if worker.is_alive():
                continue
            del self._workers[worker]
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            _meeting_point(self._folder, worker.pid).unlink(missing_ok=True)
            if self._alive.closed:
                continue
            code = worker.exitcode or 0
            if code not in _WANTED and time.monotonic() - started < INFANCY:
                raise SystemExit(code if code > 0 else 128 - code)  # the next one would do the same, for ever
            self._start()

    def _stop(self, signum: int) -> None:
        if self._alive.closed:
            raise SystemExit(128 + signum)
        self._sock.close()  # or who connects now would wait for nobody
        # Not by a signal: whoever signals all processes, as systemd does, has done so already, and two mean at once.
        self._alive.close()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """What is told by signals can be read from a socket, a byte each, meanwhile."""
    told, tell = socket.socketpair()
    with told, tell:
        told.setblocking(False)
        tell.setblocking(False)
        # Whoever started us may want some of them ignored, as nohup does.
        before: dict[signal.Signals, Any] = {
            number: signal.signal(number, _nothing)
            for number in _STOPPING
            if signal.getsignal(number) != signal.SIG_IGN
        }
        wakes = signal.set_wakeup_fd(tell.fileno())
        try:
            yield told
        finally:
            signal.set_wakeup_fd(wakes)
            for number, handler in before.items():
                signal.signal(number, handler)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """A handler must be there for a signal to be told."""


def _read(told: socket.socket) -> bytes:
    try:
        return told.recv(16)
    except BlockingIOError:
        return b""


def _work(settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None, folder: Path, stopped: Any) -> None:
    """What a worker does."""
    relay = _relay(settings, log)
    relay.lifespan = functools.partial(_meeting, folder, relay)
    serve(relay, settings, sock, stopped.fileno())
    starter = multiprocessing.parent_process()
    if starter and not starter.is_alive() and not any(folder.glob("*.sock")):
        shutil.rmtree(folder, ignore_errors=True)  # nobody else will


@contextlib.asynccontextmanager
async def _meeting(folder: Path, relay: Relay) -> AsyncIterator[None]:
    """Tell other workers what this one knows, and ask them when somebody wants to know all."""
    if sys.platform == "win32":
        raise NotImplementedError("see serve_together")
    mine = _meeting_point(folder, os.getpid())

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            seen = {"": int(await reader.readline() or b"0")}
            writer.write(msgspec.json.encode(await relay.snapshot(seen)))
            await writer.drain()
        writer.close()

    async def gather(seen: dict[str, int]) -> Snapshot:
        others = [path for path in folder.glob("*.sock") if path != mine]
        told = await asyncio.gather(*(_ask(path, seen) for path in others))
        return merged([await relay.snapshot(seen), *(picture for picture in told if picture)])

    server = await asyncio.start_unix_server(tell, mine)
    relay.gather = gather
    try:
        yield
    finally:
        server.close()
        mine.unlink(missing_ok=True)


def _meeting_point(folder: Path, pid: int | None) -> Path:
    """The Unix socket at which a worker tells what it knows."""
    return folder / f"{pid}.sock"


async def _ask(path: Path, seen: dict[str, int]) -> Snapshot | None:
    """What another worker knows, and has not told before; ``None`` where it is gone."""
    if sys.platform == "win32":
        raise NotImplementedError("see serve_together")
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"%d\n" % seen.get(path.name, 0))
                picture = msgspec.json.decode(await reader.read(), type=Snapshot)
            finally:
                writer.close()
    except (OSError, msgspec.DecodeError):
        return None
    seen[path.name] = picture.totals.turns
    return picture


def _relay(settings: Settings, log: Mapping[str, bool] | None) -> Relay:
    return Relay(settings, version=__version__, log=None if log is None else AccessLog(_write_line, **log))


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
