"""A turn between a scripted upstream and a recorded client, in virtual time: waits cost nothing, figures are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import anyio
import trio
import trio.testing

from relay.asked import CHAT, Asked
from relay.downstream import Downstream
from unbroken.core.actions import Limits, RetryEvent
from unbroken.core.failures import Failure, Row
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.policy import Policy
from unbroken.core.route import RouteRecord
from unbroken.drivers.pouring import PouringDriver
from unbroken.errors import WireError
from unbroken.relay import asgi
from unbroken.relay.heartbeats import Heartbeats
from unbroken.relay.recorder import Recorder, RequestRecord
from unbroken.relay.reply import Reply
from unbroken.relay.turns import RelayedTurn

Happening: TypeAlias = float | Head | bytes | Exception
"""What an upstream does: wait so many seconds, send headers, bytes (none: a clean end), or fail."""

Script: TypeAlias = Sequence[Happening]
"""What it does with one request; then it is silent for ever."""


def head(status: int = 200, content_type: str = "text/event-stream", **fields: str) -> Head:
    every = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return Head(status, tuple((name.encode(), value.encode()) for name, value in every.items()))


def lost(failure: Failure = Failure.RESET) -> WireError:
    return WireError(failure)


LIMIT = 3000.0
"""Virtual seconds after which whatever still waits will wait for ever."""

OK = head()
JSON = head(200, "application/json")
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}\n\n'
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": null}]}\n\n'
STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
END = b""
NO_RECORD = RouteRecord()
ENDING = (STOP, DONE, END)
ANSWER = (ROLE, TOKEN, *ENDING)
BEAT = CHAT.dialect.heartbeat
SLOW_DOWN = b'{"error": {"message": "Slow down.", "type": "rate_limit_exceeded"}}'


@dataclass
class ScriptedPath:
    sent: bool = False
    received: int = 0
    round_trip: float | None = None
    moved_at: float = 0.0
    record: RouteRecord = NO_RECORD

    def unanswered(self, now: float) -> float | None:
        return None

    def silent(self, now: float) -> float:
        return now - self.moved_at


class ScriptedExchange:
    """See :class:`unbroken.wire.contract.PouringExchange`.

    Attributes:
        closed_at: when it was closed.
        given: how many bytes were taken from it.
    """

    def __init__(self, script: Script, wakes_after: float) -> None:
        self.path = ScriptedPath()
        self._wakes_after = wakes_after
        self.closed_at: float | None = None
        self.given = 0
        self._script = list(script)

    async def send(self, limits: Limits) -> Head:
        first = self._script[0] if self._script else None
        if isinstance(first, WireError) and first.failure.row in (Row.UNREACHABLE, Row.MISCONFIGURED):
            raise first
        self.path = ScriptedPath(sent=True, moved_at=trio.current_time())
        happening = await self._next(limits)
        assert isinstance(happening, Head), happening
        return happening

    async def read(self, limits: Limits) -> bytes:
        happening = await self._next(limits)
        assert isinstance(happening, bytes), happening
        return happening

    async def pour(self, limits: Limits, sink: Callable[[bytes], bool]) -> None:
        more = True
        while more:
            happening = await self._next(limits)
            assert isinstance(happening, bytes), happening
            if not happening:
                self._script.insert(0, happening)
            more = bool(happening) and sink(happening)
        await trio.sleep(self._wakes_after)

    async def aclose(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()

    async def _next(self, limits: Limits) -> Happening:
        with trio.move_on_at(math.inf if limits.until is None else limits.until):
            while True:
                happening = self._script.pop(0) if self._script else math.inf
                if not isinstance(happening, float):
                    break
                await trio.sleep(happening)
            if isinstance(happening, Exception):
                raise happening
            self.path.moved_at = trio.current_time()
            self.given += len(happening) if isinstance(happening, bytes) else 0
            return happening
        raise WireError(Failure.DEADLINE)


class ScriptedWire:
    """A script for each request, in order."""

    def __init__(self, scripts: Sequence[Script], wakes_after: float = 0.0) -> None:
        self._wakes_after = wakes_after
        self.exchanges: list[ScriptedExchange] = []
        self._scripts = list(scripts)

    def paths(self, request: Request) -> Paths:
        return Paths()

    def exchange(self, request: Request, path: int | None = None) -> ScriptedExchange:
        self.exchanges.append(ScriptedExchange(self._scripts.pop(0), self._wakes_after))
        return self.exchanges[-1]

    async def aclose(self) -> None:
        pass


@dataclass
class Stage:
    """One turn.

    Args:
        scripts: what the upstream does.
        asked: what the client asks.
        streaming: whether for a stream.
        policy: the limits.
        heartbeat: seconds, 0 for none.
        early: whether before the headers too.
        wakes_after: how long the task that poured takes to wake up, seconds.

    Attributes:
        client: what it got.
        raised: what came out of the turn.
        told: every retry and replay.
        ended: when the turn had ended.
        cancelled: whether it ended by the cancellation of :meth:`stop`.
        pours: whether the server has a writer.
    """

    scripts: Sequence[Script]
    asked: Asked = CHAT
    streaming: bool = True
    policy: Policy = field(default_factory=Policy)
    heartbeat: float = 15.0
    early: bool = False
    wakes_after: float = 0.0
    client: Downstream = field(init=False)
    turn: RelayedTurn = field(init=False)
    wire: ScriptedWire = field(init=False)
    told: list[RetryEvent] = field(default_factory=list)
    raised: BaseException | None = None
    ended: float | None = None
    cancelled: bool = False
    pours: ClassVar[bool] = True

    async def perform(self, *others: Callable[[], Any]) -> None:
        """Run it to its end, and others besides, which may outlive it."""
        self.set_up()
        recorder = Recorder()
        recorder.start(self.turn)
        heartbeats = Heartbeats(recorder.live, self.heartbeat, early=self.early, clock=trio.current_time)
        async with heartbeats, anyio.create_task_group() as tasks:
            for other in others:
                tasks.start_soon(other)
            with anyio.CancelScope() as self.scope:
                await self._run()
            self.cancelled = self.scope.cancelled_caught
            recorder.end(self.record)

    def set_up(self) -> None:
        clock, call = trio.current_time, self.asked.call(streaming=self.streaming)
        self.wire = ScriptedWire(self.scripts, self.wakes_after)
        self.client = Downstream(clock)
        driver = PouringDriver(
            self.wire,
            Request("POST", "http://lab/"),
            call,
            self.policy,
            on_retry=self.told.append,
            clock=clock,
            uniform=lambda: 0.0,
        )
        writer = self.client if self.pours else None
        reply = Reply(self.client.send, call.dialect, "cafe0001", streaming=self.streaming, writer=writer, clock=clock)
        self.turn = RelayedTurn("cafe0001", self.client.incoming(), "lab", call, driver, reply, clock)

    def stop(self) -> None:
        """Cancel it, as a server that stops does."""
        self.scope.cancel()

    @property
    def record(self) -> RequestRecord:
        return self.turn.record()

    @property
    def facts(self) -> list[tuple[str | None, str]]:
        """What became of each attempt."""
        return [(attempt.failure, attempt.phase.value) for attempt in self.record.attempts]

    async def _run(self) -> None:
        try:
            await self.turn.run()
        except asgi.Broken as broken:
            self.raised = broken
        finally:
            self.ended = trio.current_time()


def perform(*scripts: Script, others: Sequence[Callable[[Stage], Any]] = (), **options: Any) -> Stage:
    """Perform one turn; what it came to.

    Args:
        scripts: see :class:`Stage`.
        others: run besides it, each with the stage.
        options: see :class:`Stage`.
    """
    stage = Stage(scripts, **options)

    async def main() -> None:
        await stage.perform(*[lambda other=other: other(stage) for other in others])

    in_virtual_time(main)
    return stage


def in_virtual_time(main: Callable[[], Any]) -> None:
    """Run; the clock jumps whenever all are waiting."""

    async def bounded() -> None:
        with trio.fail_after(LIMIT):
            await main()

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(bounded, backend="trio", backend_options={"clock": clock})


def at(seconds: float, do: Callable[[Stage], Any]) -> Callable[[Stage], Any]:
    """Something that is done so many seconds after the start."""

    async def other(stage: Stage) -> None:
        await trio.sleep(seconds)
        do(stage)

    return other
