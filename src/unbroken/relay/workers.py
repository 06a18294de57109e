"""Several processes that serve on one socket, supervised by uvicorn."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from unbroken import __version__
from unbroken.errors import UsageError
from unbroken.relay.app import Relay
from unbroken.relay.log_writer import LineWriter
from unbroken.relay.server import make_server, serve
from unbroken.relay.settings import Settings
from unbroken.relay.telemetry import METRICS_FOLDER, AccessLog
from unbroken.relay.turns import LAST_WORDS
from unbroken.relay.uvicorn_adapter import STOPPING

STDERR = 2

HUNG = 60
"""Seconds within which a worker must answer uvicorn's ping; it starts within them too, on a busy machine."""

CLOSING = 10.0
"""Seconds that the process of a worker may take to end, once it no longer serves."""

INFANCY = 10.0
"""Seconds of serving within which the failure of a worker shows that none can."""

_WANTED = frozenset({0, *(-number for number in STOPPING), -9})
"""Exit codes of a worker that was ended from outside, or ended well."""


def serve_together(workers: int, settings: Settings, sock: socket.socket, log: Mapping[str, bool] | None) -> None:
    """Serve until a signal says to stop.

    Args:
        workers: how many processes; with 1 this one serves alone.
        settings: the settings of every relay; a store was found to be in order.
        sock: a listening socket, which they share.
        log: how the access log is written, see :class:`unbroken.relay.telemetry.AccessLog`; ``None`` for none.

    Raises:
        UsageError: several processes cannot serve together here.
        SystemExit: the workers cannot serve, or a second signal came.
    """
    if workers == 1:
        lines = LineWriter(STDERR)
        serve(_relay(settings, log, lines), settings, sock, lines)
        return
    if sys.platform == "win32":
        raise UsageError("--workers needs a system with Unix signals")
    os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="unbroken-")  # before the workers import prometheus-client
    try:
        # Whoever starts them has tried the store: a worker that replaces another one begins without it if need be.
        settings = dataclasses.replace(settings, store_was_there=True)
        Supervisor(WorkerConfig(workers, settings, log), [sock]).run()
    finally:
        shutil.rmtree(os.environ.pop(METRICS_FOLDER), ignore_errors=True)


class WorkerConfig(uvicorn.Config):
    """What uvicorn's supervisor and the workers are told.

    Args:
        workers: how many.
        settings: see :func:`serve_together`.
        log: see :func:`serve_together`.
    """

    def __init__(self, workers: int, settings: Settings, log: Mapping[str, bool] | None) -> None:
        super().__init__("", workers=workers, log_config=None, timeout_worker_healthcheck=HUNG)
        self.settings = settings
        self.log = log


class Worker(multiprocess.Process):
    """A worker. It ends when its supervisor tells it to, or has ended itself."""

    config: WorkerConfig
    failure = 0
    """The exit code of a worker that failed so early that another one would fail too, for ever; else 0."""
    _ends_by: float | None = None
    _pinged_at: float | None = None
    _serves_since: float | None = None

    def start(self) -> None:
        """Start the process."""
        if sys.platform == "win32":
            raise NotImplementedError("see serve_together")
        # A terminal sends SIGINT to the workers too, but they must not act on it: blocked signals are inherited.
        resource_tracker.ensure_running()  # otherwise it would be started now, and unblock
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; this runs in the worker."""
        lines, starter = LineWriter(STDERR), multiprocessing.parent_process()
        relay = _relay(self.config.settings, self.config.log, lines, _shown())
        # Made before the thread that answers pings asks for it.
        self._server = make_server(relay, self.config.settings, lines, starter.sentinel if starter else None)
        try:
            super().target(sockets)
        finally:
            lines.close()
            if sys.stdin:
                sys.stdin.close()  # uvicorn has opened it
            if starter and not starter.is_alive():
                _clean_up()

    def is_alive(self, timeout: float = HUNG) -> bool:
        """Return whether it runs, and has answered the last ping in time.

        uvicorn would wait for the answer, and a signal with it.
        """
        now = time.monotonic()
        if self._pinged_at and self.parent_conn.poll():
            self._pinged_at = None
            if self.parent_conn.recv() and self._serves_since is None:
                self._serves_since = now
        if self._pinged_at is None:
            self.parent_conn.send(b"ping")
            self._pinged_at = now
        return self.process.is_alive() and now - self._pinged_at < timeout

    def terminate(self) -> None:
        """Tell it to stop, within the grace period."""
        super().terminate()
        self._ends_by = time.monotonic() + self.config.settings.grace + LAST_WORDS + CLOSING

    def join(self) -> None:
        """Wait until it has ended; end it if that takes too long."""
        now = time.monotonic()
        self.process.join(None if self._ends_by is None else max(0.0, self._ends_by - now))
        self.process.kill()
        super().join()
        mark_process_dead(self.pid)  # type: ignore[no-untyped-call]
        code = self.process.exitcode or 0
        if code not in _WANTED and (self._serves_since is None or now - self._serves_since < INFANCY):
            self.failure = code if code > 0 else 128 - code

    @property
    def exitcode(self) -> int | None:
        """The exit code, by which uvicorn knows that another one would fail too."""
        return STARTUP_FAILURE if self.failure else self.process.exitcode


class Supervisor(multiprocess.Multiprocess):
    """uvicorn's supervisor, whose workers are ours, and which stops as a single relay does."""

    processes: list[Worker]  # type: ignore[assignment]

    def __init__(self, config: WorkerConfig, sockets: list[socket.socket]) -> None:
        ignored = {number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN}  # as nohup does
        super().__init__(config, sockets)
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN if number in ignored else self._told)
        multiprocess.Process = Worker  # type: ignore[misc]  # uvicorn has no parameter for it
        self._failure = 0

    def run(self) -> None:
        """Keep the workers running until a signal, and until they have stopped.

        Raises:
            SystemExit: the workers cannot serve, or a second signal came: they are ended at once.
        """
        try:
            super().run()
        finally:
            for worker in multiprocessing.active_children():
                worker.kill()
        if self._failure:
            raise SystemExit(self._failure)

    def handle_hup(self) -> None:
        """Stop: the terminal was closed."""
        self.handle_term()

    def terminate_all(self) -> None:
        """Tell all workers to stop."""
        self._failure = next((worker.failure for worker in self.processes if worker.failure), 0)
        for sock in self.sockets:
            sock.close()  # otherwise new connections would be accepted by no process
        super().terminate_all()

    def _told(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal handler's signature
        if self.signal_queue or self.should_exit.is_set():
            raise SystemExit(128 + signum)
        self.signal_queue.append(signum)


def _shown() -> str:
    return f"worker {os.getpid()} alone: a page that is opened anew may be another one's; the metrics are those of all"


def _clean_up() -> None:
    """Remove the folder of the metrics, as the supervisor no longer can: the last worker does."""
    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
    folder = Path(os.environ[METRICS_FOLDER])
    if not any(folder.glob("gauge_live*")):
        shutil.rmtree(folder, ignore_errors=True)


def _relay(settings: Settings, log: Mapping[str, bool] | None, lines: LineWriter, shows: str = "") -> Relay:
    return Relay(settings, version=__version__, log=None if log is None else AccessLog(lines, **log), shows=shows)
