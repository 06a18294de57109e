"""Ending responses that their client does not read: each holds memory, a connection and an upstream that is paid."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from unbroken.relay import asgi

TICK = 1.0
"""Seconds between two looks at all responses, at most."""


class WatchedSend:
    """ASGI's ``send`` of one response, which knows since when it waits for the client.

    What is entered with it (``with``) is cancelled when the client accepts nothing.

    Args:
        send: ASGI's.
        watched: the responses that are watched; this one is among them while it is entered.
        clock: monotonic seconds.

    Attributes:
        waiting_since: since when the client has accepted nothing, ``None`` while nothing is sent.
        timed_out: whether that was too long.
        on_timeout: what is done instead of cancelling when it is too long, ``None`` for nothing.
    """

    __slots__ = ("_clock", "_scope", "_send", "_watched", "on_timeout", "timed_out", "waiting_since")

    def __init__(self, send: asgi.Send, watched: set[WatchedSend], clock: Callable[[], float]) -> None:
        self.waiting_since: float | None = None
        self.timed_out = False
        self.on_timeout: Callable[[], None] | None = None
        self._send = send
        self._scope = anyio.CancelScope()
        self._watched = watched
        self._clock = clock

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._watched.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._watched.discard(self)
        return bool(self._scope.__exit__(kind, error, traceback))

    async def __call__(self, message: asgi.Message) -> None:
        """Send a message."""
        self.waiting_since = self._clock()
        await self._send(message)
        self.waiting_since = None

    def give_up(self) -> None:
        """End the response."""
        if self.on_timeout:
            self.waiting_since = None
            self.on_timeout()
            return
        self.timed_out = True
        self._scope.cancel()


class Watchdog:
    """Ends responses whose client accepts nothing, while it is entered.

    One task serves all responses: a timer for each message would cost more than the message.

    Args:
        timeout: seconds for which a client may accept nothing.
        clock: monotonic seconds.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._watched: set[WatchedSend] = set()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tasks:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(kind, error, traceback)

    def watch(self, send: asgi.Send) -> WatchedSend:
        """Return a ``send`` to enter, which is watched meanwhile."""
        return WatchedSend(send, self._watched, self._clock)

    async def _look(self) -> None:
        while True:
            await anyio.sleep(min(TICK, self._timeout / 4))
            due = self._clock() - self._timeout
            for watched in tuple(self._watched):
                if watched.waiting_since is not None and watched.waiting_since <= due:
                    watched.give_up()
