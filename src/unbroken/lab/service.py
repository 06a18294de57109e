"""A server on a thread and an event loop of its own, so that any kind of program can start it, watch it and stop it."""

from __future__ import annotations

import asyncio
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from unbroken.lab.condition import Condition


class Service(ABC):
    """A TCP server as a context manager. Subclasses serve its connections.

    Attributes:
        connections: how many connections were accepted so far.
        open_connections: how many of them are open.
    """

    def __init__(self, host: str, port: int) -> None:
        self.connections = 0
        self.open_connections = 0
        self._host = host
        self._port = port
        self._condition = Condition()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}
        self._crashes: list[BaseException] = []

    def start(self) -> Self:
        """Bind the port and begin to serve. A service is started once.

        Raises:
            OSError: the port cannot be bound.
            RuntimeError: it was started before.
        """
        if self._listener is not None:
            raise RuntimeError("a service can be started only once")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, self._port), family=family, backlog=128)
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def close(self) -> None:
        """Stop serving, close every connection and end the thread. May be called again.

        Raises:
            Exception: the first error of the service itself, if any; never one that a client caused.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        if self._crashes:
            raise self._crashes[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port; known once the service is started."""
        return self._port

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until `predicate` is true, for at most `timeout` seconds; return whether it became true.

        The predicate is evaluated at every change of the service's attributes. The call blocks: in an event loop, use
        ``asyncio.to_thread``.
        """
        return self._condition.wait_for(predicate, timeout)

    @property
    def _address(self) -> str:
        """Host and port as in a URL."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def _apply(self, change: Callable[[], None]) -> None:
        """Make a change on the service's own thread, and wait for it."""
        applied = threading.Event()

        def apply() -> None:
            change()
            applied.set()

        self._loop.call_soon_threadsafe(apply)
        applied.wait()

    @abstractmethod
    async def _serve(self, sock: socket.socket) -> None:
        """Serve one accepted connection. It may raise OSError when the client leaves."""

    def _run(self) -> None:
        # A selector loop on Windows too: raw streams read their sockets themselves.
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._main())
        finally:
            self._ready.set()  # also after an error, so that start() returns

    async def _main(self) -> None:
        assert self._listener is not None
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._loop.add_reader(self._listener, self._accept, self._listener)
        self._ready.set()
        await self._stopping.wait()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # the client has already left
            return
        with self._condition.change():
            self.connections += 1
            self.open_connections += 1
        task = self._loop.create_task(self._serve(sock))
        self._tasks[task] = sock
        task.add_done_callback(self._on_served)

    def _on_served(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).close()  # a task that is cancelled before it began has not closed it
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError):
            self._crashes.append(error)
        with self._condition.change():
            self.open_connections -= 1
