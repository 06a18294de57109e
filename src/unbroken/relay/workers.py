"""Several processes that serve together: their start, their end, and the exchange of snapshots between them."""

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
import threading
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
from unbroken.relay.log_writer import LineWriter
from unbroken.relay.recorder import Snapshot, merged
from unbroken.relay.server import serve
from unbroken.relay.settings import Settings
from unbroken.relay.telemetry import AccessLog
from unbroken.relay.uvicorn_adapter import STOPPING

STDERR = 2

PATIENCE = 1.0
"""Seconds that a process waits for the snapshot of another one."""

CLOSING = 10.0
"""Seconds within which a worker's event loop is closed after its last request; it then ends without that."""

INFANCY = 10.0
"""Seconds after its start within which the failure of a worker shows that none can serve."""

_WANTED = frozenset({0, *(-number for number in STOPPING), -9})
"""Exit codes of a worker that was ended from outside, or ended well."""

_METRICS = "PROMETHEUS_MULTIPROC_DIR"


def serve_together(workers: int, settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None) -> None:
    """Serve until a signal says to stop.

    Args:
        workers: how many processes; with 1 this one serves alone.
        settings: the settings of every relay.
        sock: a listening socket, which they share.
        log: how the access log is written, see :class:`unbroken.relay.telemetry.AccessLog`; ``None`` for none.

    Raises:
        UsageError: several processes cannot serve together here.
    """
    if workers == 1:
        lines = LineWriter(STDERR)
        serve(_relay(settings, log, lines), settings, sock, lines)
        return
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        raise UsageError("--workers needs a system with Unix sockets")
    folder = Path(tempfile.mkdtemp(prefix="unbroken-"))  # readable only by this user
    try:
        Crew(workers, settings, sock, log, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Crew:
    """A supervisor of workers, which starts them, replaces those that end, and stops them all.

    Args:
        size: how many workers.
        settings: see :func:`serve_together`.
        sock: the listening socket; closed at the end.
        log: the access log, see :func:`serve_together`.
        folder: the folder of their Unix sockets and metrics.
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
        # Nothing is ever written: the workers' end becomes readable when this end is closed, or this process has ended.
        self._stopped, self._alive = self._context.Pipe(duplex=False)
        self._workers: dict[BaseProcess, float] = {}  # when each was started

    def run(self) -> None:
        """Keep the workers running until a signal, and until they have stopped; a second signal ends them at once.

        Raises:
            SystemExit: the workers cannot serve, or a second signal came.
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
        # A terminal sends SIGINT to the workers too, but they must not act on it: blocked signals are inherited.
        resource_tracker.ensure_running()  # otherwise it would be started now, and unblock
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
                raise SystemExit(code if code > 0 else 128 - code)  # another one would fail too, for ever
            self._start()

    def _stop(self, signum: int) -> None:
        if self._alive.closed:
            raise SystemExit(128 + signum)
        self._sock.close()  # otherwise new connections would be accepted by no process
        # Not by a signal: systemd, for example, has signalled all processes already, and a second one ends at once.
        self._alive.close()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Deliver signals as bytes on a socket while this is entered."""
    told, tell = socket.socketpair()
    with told, tell:
        told.setblocking(False)
        tell.setblocking(False)
        # Keep signals ignored that the parent ignores, as nohup does.
        before: dict[signal.Signals, Any] = {
            number: signal.signal(number, _nothing) for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN
        }
        wakes = signal.set_wakeup_fd(tell.fileno())
        try:
            yield told
        finally:
            signal.set_wakeup_fd(wakes)
            for number, handler in before.items():
                signal.signal(number, handler)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Do nothing: a signal is delivered on the socket only if it has a handler."""


def _read(told: socket.socket) -> bytes:
    try:
        return told.recv(16)
    except BlockingIOError:
        return b""


def _work(settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None, folder: Path, stopped: Any) -> None:
    """Run a worker."""
    lines = LineWriter(STDERR)
    relay = _relay(settings, log, lines)
    relay.lifespan = functools.partial(_meeting, folder, relay)
    serve(relay, settings, sock, lines, stopped.fileno())
    starter = multiprocessing.parent_process()
    if starter and not starter.is_alive() and not any(folder.glob("*.sock")):
        shutil.rmtree(folder, ignore_errors=True)  # no other process will


@contextlib.asynccontextmanager
async def _meeting(folder: Path, relay: Relay) -> AsyncIterator[None]:
    """Serve this worker's snapshot to the others, and make the relay gather theirs."""
    if sys.platform == "win32":
        raise NotImplementedError("see serve_together")
    mine = _meeting_point(folder, os.getpid())

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                seen = {"": int(await reader.readline() or b"0")}
                writer.write(msgspec.json.encode(await relay.snapshot(seen)))
                await writer.drain()
        finally:
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
        # uvloop's close was seen to wait for ever for two connections that were still open.
        last = threading.Timer(CLOSING, os._exit, [0])
        last.daemon = True
        last.start()


def _meeting_point(folder: Path, pid: int | None) -> Path:
    """Return the Unix socket at which a worker serves its snapshot."""
    return folder / f"{pid}.sock"


async def _ask(path: Path, seen: dict[str, int]) -> Snapshot | None:
    """Return the snapshot of another worker, without the turns that were seen; ``None`` if the worker is gone."""
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


def _relay(settings: Settings, log: Mapping[str, bool] | None, lines: LineWriter) -> Relay:
    return Relay(settings, version=__version__, log=None if log is None else AccessLog(lines, **log))
