"""A wire that does what a script says and notes what a driver does; and both drivers behind one blocking interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import anyio
import msgspec

from unbroken.core.actions import Limits
from unbroken.core.dialects import recognise
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.policy import Policy
from unbroken.core.route import RouteRecord
from unbroken.core.suspicion import PathEvent
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.notices import PathCallback, RetryCallback
from unbroken.drivers.synchronous import Driver
from unbroken.errors import WireError

NO_RECORD = RouteRecord()

Happening: TypeAlias = Head | bytes | PathEvent | BaseException | Callable[[], object]
"""What comes next: the headers, bytes (none: the end), an event of the path, an error, or something to do first."""

OK = Head(200, ((b"content-type", b"text/event-stream"),))
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}\n\n'
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": null}]}\n\n'
STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER: tuple[Happening, ...] = (OK, ROLE, TOKEN, STOP, DONE, b"")

REQUEST = Request(
    "POST",
    "http://lab/v1/chat/completions",
    ((b"Accept-Encoding", b"gzip"), (b"authorization", b"Bearer sk-secret")),
    msgspec.json.encode({"messages": [], "stream": True}),
)


def reset() -> WireError:
    return WireError(Failure.RESET)


@dataclasses.dataclass
class ScriptedPath:
    sent: bool = False
    received: int = 0
    round_trip: float | None = None
    record: RouteRecord = NO_RECORD

    def unanswered(self, now: float) -> float | None:
        return None

    def silent(self, now: float) -> float:
        return 1.5


class ScriptedExchange:
    def __init__(self, wire: ScriptedWire, request: Request, script: Sequence[Happening]) -> None:
        self.path = ScriptedPath()
        self.request = request
        self._wire = wire
        self._script = list(script)

    def send(self, limits: Limits) -> Any:
        self.begin("send", limits)
        while callable(happening := self.next()):
            happening()
        return happening

    def read(self, limits: Limits) -> Any:
        self.begin("read", limits)
        while callable(happening := self.next()):
            happening()
        return happening

    def lower_ping(self, interval: float) -> None:
        self._wire.log.append(f"ping every {interval:g}")

    def close(self) -> None:
        self._wire.log.append("close")

    def begin(self, what: str, limits: Limits) -> None:
        self._wire.log.append(what)
        self._wire.limits.append((what, limits))
        self.path.sent = True

    def next(self) -> Happening:
        self._wire.now += 1.0
        happening = self._script.pop(0)
        if isinstance(happening, BaseException):
            raise happening
        return happening


class ScriptedWire:
    """One script for each exchange, in order.

    Attributes:
        now: the clock; everything that happens takes a second.
        log: what was done, in order.
        limits: the limits of each ``send`` and ``read``.
        exchanges: those that were made.
        while_asleep: called by every ``sleep``.
        named: the paths that there are.
        taken: the path of each exchange.
    """

    def __init__(self, *scripts: Sequence[Happening]) -> None:
        self.now = 1000.0
        self.log: list[str] = []
        self.limits: list[tuple[str, Limits]] = []
        self.exchanges: list[ScriptedExchange] = []
        self.while_asleep: Callable[[], object] = lambda: None
        self.named = Paths()
        self.taken: list[int | None] = []
        self._scripts = list(scripts)

    def paths(self, request: Request) -> Paths:
        return self.named

    def prefer(self, request: Request, path: int) -> None:
        self.log.append(f"prefer {path}")

    def exchange(self, request: Request, path: int | None = None) -> ScriptedExchange:
        self.taken.append(path)
        self.exchanges.append(ScriptedExchange(self, request, self._scripts.pop(0)))
        return self.exchanges[-1]

    def close(self) -> None:
        self.log.append("close the wire")

    def sleep(self, seconds: float) -> Any:
        self.log.append(f"sleep {seconds:g}")
        self.now += seconds
        return self.while_asleep()


class _AsyncExchange:
    def __init__(self, exchange: ScriptedExchange) -> None:
        self._exchange = exchange

    @property
    def path(self) -> ScriptedPath:
        return self._exchange.path

    async def send(self, limits: Limits) -> Any:
        self._exchange.begin("send", limits)
        while callable(happening := self._exchange.next()):
            await _awaited(happening())
        return happening

    async def read(self, limits: Limits) -> Any:
        self._exchange.begin("read", limits)
        while callable(happening := self._exchange.next()):
            await _awaited(happening())
        return happening

    def lower_ping(self, interval: float) -> None:
        self._exchange.lower_ping(interval)

    async def aclose(self) -> None:
        self._exchange.close()


async def _awaited(result: object) -> None:
    if isinstance(result, Awaitable):
        await result


class _AsyncWire:
    def __init__(self, wire: ScriptedWire) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def exchange(self, request: Request, path: int | None = None) -> _AsyncExchange:
        return _AsyncExchange(self._wire.exchange(request, path))

    async def aclose(self) -> None:
        self._wire.close()


class Blocking:
    """An :class:`AsyncDriver`, step by step, each on a loop of its own: nothing in a driver may depend on one."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    @property
    def leave(self) -> Callable[[], Awaitable[None]]:
        """Closes it from another task."""
        return self._driver.aclose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    @property
    def within_one_loop(self) -> AsyncDriver:
        """The driver itself."""
        return self._driver

    def open(self) -> Head:
        return anyio.run(self._driver.open)

    def close(self) -> None:
        anyio.run(self._driver.aclose)

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> bytes:
        async def step() -> bytes | None:
            try:
                return await anext(self._driver)
            except StopAsyncIteration:
                return None

        if (chunk := anyio.run(step)) is None:
            raise StopIteration
        return chunk


Make: TypeAlias = Callable[..., Any]


def make_driver(
    wire: ScriptedWire,
    policy: Policy | None = None,
    on_retry: RetryCallback | None = None,
    on_path: PathCallback | None = None,
    request: Request = REQUEST,
) -> Driver:
    call = recognise(request)
    assert call
    return Driver(
        wire,
        request,
        call,
        policy or Policy(),
        on_retry=on_retry,
        on_path=on_path,
        clock=lambda: wire.now,
        wall_clock=lambda: 0.0,
        uniform=lambda: 0.0,
        sleep=wire.sleep,
    )


def make_async_driver(
    wire: ScriptedWire,
    policy: Policy | None = None,
    on_retry: RetryCallback | None = None,
    on_path: PathCallback | None = None,
    request: Request = REQUEST,
) -> Blocking:
    call = recognise(request)
    assert call

    async def sleep(seconds: float) -> None:
        await _awaited(wire.sleep(seconds))

    return Blocking(
        AsyncDriver(
            _AsyncWire(wire),
            request,
            call,
            policy or Policy(),
            on_retry=on_retry,
            on_path=on_path,
            clock=lambda: wire.now,
            wall_clock=lambda: 0.0,
            uniform=lambda: 0.0,
            sleep=sleep,
        )
    )
