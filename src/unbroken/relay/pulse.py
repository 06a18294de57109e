"""Heartbeats: clients and what stands before them have idle timers of their own.

One task looks after all turns: a timer for each would cost memory for every open stream, and a second's precision is
enough.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from unbroken.relay.board import Board
from unbroken.relay.reply import Reply

MAX_TICK = 1.0
"""Seconds between two looks at all turns, at most."""


class Pulse:
    """Sends heartbeats to the clients of quiet turns, while it is entered.

    Args:
        board: whose live turns are looked after.
        interval: seconds of quiet after which a heartbeat is sent; 0 for never.
        early: whether also before the upstream has answered.
        clock: monotonic seconds, the turns'.
    """

    def __init__(
        self, board: Board, interval: float, *, early: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._interval = interval
        self._early = early
        self._clock = clock
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        if self._interval:
            self._tasks = await anyio.create_task_group().__aenter__()
            self._tasks.start_soon(self._beat, self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tasks:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(kind, error, traceback)

    async def _beat(self, tasks: TaskGroup) -> None:
        tick = min(MAX_TICK, self._interval / 4)
        while True:
            await anyio.sleep(tick)
            late = self._clock() - self._interval
            for turn in tuple(self._board.live.values()):
                since = turn.quiet_since(early=self._early)
                if since is not None and since <= late and not turn.reply.busy:
                    # Not in the turn's own task group: what is started in one that was cancelled never ends (anyio).
                    tasks.start_soon(_beat_once, turn.reply)


async def _beat_once(reply: Reply) -> None:
    with contextlib.suppress(Exception):  # a client that is gone is its own turn's trouble, not all turns'
        await reply.heartbeat()
