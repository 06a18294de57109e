"""Heartbeats to clients, which have idle timers of their own, as do the proxies in front of them.

One task serves all turns: a timer for each would cost memory for every open stream, and a second's precision is enough.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from unbroken.relay.reply import Reply
from unbroken.relay.turns import RelayedTurn

MAX_TICK = 1.0
"""Maximum seconds between two checks of all turns."""


class Heartbeats:
    """A sender of heartbeats to the clients of silent turns, while it is entered.

    Args:
        live: the turns that run, by their ids; it changes while heartbeats are sent.
        interval: seconds of silence after which a heartbeat is sent; 0 for never.
        early: whether to send them also before the upstream has answered.
        clock: monotonic seconds, the clock of the turns.
    """

    def __init__(
        self,
        live: Mapping[str, RelayedTurn],
        interval: float,
        *,
        early: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
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
            for turn in tuple(self._live.values()):
                since = turn.quiet_since(early=self._early)
                if since is not None and since <= late and not turn.reply.busy:
                    # Not in the turn's own task group: a task started in a cancelled group never ends (anyio).
                    tasks.start_soon(_beat_once, turn.reply)


async def _beat_once(reply: Reply) -> None:
    with contextlib.suppress(Exception):  # a client that is gone fails its own turn, not all turns
        await reply.heartbeat()
