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
from collections.abc import Iterator, Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from unbroken import __version__
from unbroken.errors import UsageError
from unbroken.relay.access import AccessLog
from unbroken.relay.app import Relay
from unbroken.relay.board import Snapshot, merged
from unbroken.relay.server import serve
from unbroken.relay.settings import Settings

PATIENCE = 1.0
"""Seconds that a process waits for what another one knows."""


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
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # before the workers import prometheus-client
    try:
        Crew(workers, settings, sock, log, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Crew:
    """Starts workers, replaces those that die, and ends them all.

    Args:
        size: how many.
        settings: see :func:`serve_together`, as the next ones.
        sock: the listening socket.
        log: the access log.
        folder: where they meet.
    """

    def __init__(
        self, size: int, settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None, folder: Path
    ) -> None:
        self._settings = settings
        self._sock = sock
        self._log = log
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        # Nobody ever writes: it becomes readable for the workers when this process is gone.
        self._orphaned, self._alive = self._context.Pipe(duplex=False)
        self._stopping = False
        self._workers = [self._start() for _ in range(size)]

    def run(self) -> None:
        """Keep them running until a signal says to stop."""
        with self._signals():
            while self._workers:
                wait([worker.sentinel for worker in self._workers])
                self._bury()

    def _start(self) -> BaseProcess:
        worker = self._context.Process(
            target=_work, args=(self._settings, self._sock, self._log, self._folder, self._orphaned), daemon=False
        )
        worker.start()
        return worker

    def _bury(self) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            self._workers.remove(worker)
            if not self._stopping:
                self._workers.append(self._start())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
            for worker in self._workers:
                if self._stopping:
                    worker.kill()
                else:
                    worker.terminate()
            if self._stopping:
                os._exit(128 + signum)
            self._stopping = True

        before: dict[signal.Signals, Any] = {
            number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _work(settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None, folder: Path, orphaned: Any) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells everybody; the one who started us tells us
    relay = _relay(settings, log)
    relay.meet = functools.partial(_meeting, folder, relay)
    serve(relay, settings, sock, orphaned.fileno())


@contextlib.asynccontextmanager
async def _meeting(folder: Path, relay: Relay) -> Any:
    """Tell other workers what this one knows, and ask them when somebody wants to know all."""
    mine = folder / f"{os.getpid()}.sock"

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        writer.write(msgspec.json.encode(await relay.snapshot()))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def gather() -> Snapshot:
        others = [path for path in folder.glob("*.sock") if path != mine]
        told = await asyncio.gather(*(_ask(path) for path in others))
        return merged([await relay.snapshot(), *(picture for picture in told if picture)])

    server = await asyncio.start_unix_server(tell, mine)
    relay.gather = gather
    try:
        yield
    finally:
        server.close()
        mine.unlink(missing_ok=True)


async def _ask(path: Path) -> Snapshot | None:
    """What another worker knows; ``None`` where it is gone."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return msgspec.json.decode(await reader.read(), type=Snapshot)
            finally:
                writer.close()
    except (OSError, msgspec.DecodeError):
        return None


def _relay(settings: Settings, log: Mapping[str, bool] | None) -> Relay:
    return Relay(settings, version=__version__, log=None if log is None else AccessLog(_write_line, **log))


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
