"""The driver for asyncio and trio: carries out the actions of a :class:`unbroken.core.turn.Turn` over a wire."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Awaitable, Callable

from unbroken.core.actions import (
    PARTING_TIME,
    PARTING_TRIES,
    CallerTimeouts,
    Drop,
    EndTurn,
    Fail,
    Give,
    GiveHead,
    Limits,
    LowerPing,
    Notify,
    Prefer,
    Read,
    Restart,
    Send,
    Wait,
)
from unbroken.core.continuation.format import Style
from unbroken.core.dialect import Call
from unbroken.core.events import Restarted
from unbroken.core.failures import Phase
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import AttemptReport, Progress, Report
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.core.suspicion import PathEvent
from unbroken.core.turn import Turn
from unbroken.drivers.notices import PathCallback, RetryCallback, notify
from unbroken.drivers.parting import DECIDED, AsyncShield, limits_until
from unbroken.errors import StateError, UsageError, WireError
from unbroken.wire.clock import async_sleep, clock
from unbroken.wire.contract import AsyncExchange, AsyncWire


class AsyncDriver:
    """One turn: :meth:`open` it, iterate over its bytes, :meth:`aclose` it (or use ``async with``).

    Args:
        wire: where requests are sent.
        request: the request; its body is in memory, so it can be sent again.
        call: the request as its dialect recognised it.
        policy: the limits.
        on_retry: called at every retry and replay.
        on_path: called when a path does not answer, and when another thing is waited for because of it.
        timeouts: the caller's own timeouts, which apply in addition to the policy.
        may_hold: takes how many bytes of the response are held; says whether they may be; ``None`` for up to the
            policy's cap.
        continuation: the style in which the server continues an answer, ``None`` for the one that is known of it.
        kept_at: the URL of the relay at which a response that a relay keeps is taken up, ``""`` for the root of the
            server; ``None`` for nowhere.
        refused: the servers that have refused to let a response go on, which the caller's other turns know of too.
        on_restart: called before the first bytes of an attempt that begins the answer again, with its number; returns
            what the caller was told. ``None`` if the caller cannot be told: then no answer begins again.
        clock: monotonic seconds; must be the wire's clock.
        wall_clock: seconds since the epoch.
        uniform: uniform in [0, 1), for jitter.
        sleep: waits this many seconds.
    """

    def __init__(
        self,
        wire: AsyncWire,
        request: Request,
        call: Call,
        policy: Policy,
        *,
        on_retry: RetryCallback | None = None,
        on_path: PathCallback | None = None,
        timeouts: CallerTimeouts = CallerTimeouts(),  # noqa: B008 - frozen
        may_hold: Callable[[int], bool] | None = None,
        continuation: Style | None = None,
        kept_at: str | None = None,
        refused: RefusedBackgrounds | None = None,
        on_restart: Callable[[int], Restarted] | None = None,
        clock: Callable[[], float] = clock,
        wall_clock: Callable[[], float] = time.time,
        uniform: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
    ) -> None:
        self._wire = wire
        self._request = request.with_headers(accept_encoding="identity")
        self._on_retry = on_retry
        self._on_path = on_path
        self._on_restart = on_restart
        self._clock = clock
        self._sleep = sleep
        self._exchange: AsyncExchange | None = None
        self._begin = functools.partial(
            Turn,
            call,
            policy,
            random=uniform,
            wall_clock=wall_clock,
            timeouts=timeouts,
            may_hold=may_hold,
            request=self._request,
            continuation=continuation,
            kept_at=kept_at,
            refused=refused,
            may_restart=on_restart is not None,
        )
        self._turn = self._begin(now=clock())
        self._opened = False
        self._over = False
        self._left = False
        self._parts = False
        self._path = 0
        self._handed_at = 0.0

    @property
    def phase(self) -> Phase:
        """The phase of the running attempt."""
        return self._turn.phase

    @property
    def is_stream(self) -> bool:
        """Whether the response is read as a stream of events, whatever its media type."""
        return self._turn.is_stream

    @property
    def attempt(self) -> int:
        """Number of the running attempt."""
        return self._turn.attempt

    @property
    def progress(self) -> Progress:
        """The progress of the turn, and the state of its connection."""
        path = self._exchange.path if self._exchange else None
        return Progress(
            phase=self._turn.phase,
            attempt=self._turn.attempt,
            sent=path is not None and path.sent,
            silent=path.silent(self._clock()) if path else 0.0,
            round_trip=path.round_trip if path else None,
            unanswered=path.unanswered(self._clock()) if path else None,
            lowered_ping=path.record.ping if path and path.record.ping_learned else None,
            suspicion=self._turn.suspicion(self._clock()),
        )

    @property
    def running(self) -> AttemptReport | None:
        """The record of the running attempt so far; ``None`` once the turn is over."""
        now = self._clock()
        path = self._exchange.path if self._exchange else None
        silent, record = (path.silent(now), path.record) if path else (0.0, None)
        return self._turn.running(now, sent=self._was_sent, silent=silent, route=record)

    @property
    def report(self) -> Report:
        """The report of all attempts that have ended so far; complete once the turn has ended."""
        return self._turn.report

    async def open(self) -> Head:
        """Run the turn until an attempt has a response to hand on; return the status and headers of that attempt.

        Raises:
            TurnError: no attempt had one, within the policy.
            StateError: the turn was opened before, or closed.
            UsageError: the environment names a malformed proxy.
        """
        if self._opened:
            raise StateError("a turn is opened once")
        paths = self._wire.paths(self._request)
        self._opened = True
        self._turn = self._begin(now=self._clock(), paths=paths)  # the limits count from here
        action = await self._advance()
        assert isinstance(action, GiveHead), "the head comes first"
        return action.head

    def __aiter__(self) -> AsyncDriver:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes of the body, as they come. A turn that has raised raises again.

        Raises:
            TurnError: the turn failed; mostly :class:`StreamCut`.
            StateError: the turn was not opened, or was closed before its end: the body is not complete.
        """
        if not self._opened:
            raise StateError("open the turn first")
        if data := await self._flow():
            return data
        action = await self._advance()
        if isinstance(action, Give):
            return action.data
        await self._drop()
        await self._part()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the turn now, in any phase. May be called more than once, and while another task (or thread) uses it."""
        if not self._over:
            self._left = self._over = True
            self._turn.cancelled(self._clock(), sent=self._was_sent)
        await self._drop()
        await self._part()

    async def __aenter__(self) -> AsyncDriver:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _flow(self) -> bytes:
        """Read while output flows and the turn has nothing to decide; return the next bytes, ``b""`` once it has."""
        turn, exchange = self._turn, self._exchange
        try:
            while exchange and (limits := turn.flowing):
                try:
                    came = await exchange.read(limits)
                except WireError as exc:
                    self._lose(exchange, exc)
                    break
                self._check_open()
                if not isinstance(came, bytes) or not came:
                    self._take(exchange, came)
                    break
                if data := turn.pour(came, self._clock()):
                    return data
        except BaseException:
            await self.aclose()
            raise
        return b""

    async def _advance(self) -> GiveHead | Give | EndTurn:
        """Carry out the turn's actions up to the next one that is for the caller."""
        if self._handed_at:
            now = self._clock()
            self._turn.resume(now - self._handed_at, now)
        try:
            while True:
                self._check_open()
                match self._turn.next():
                    case Read(limits):
                        await self._read(limits)
                    case Give() | GiveHead() as action:
                        self._handed_at = self._clock()
                        return action
                    case EndTurn() as action:
                        self._over = True
                        return action
                    case Send(_, limits, path, request):
                        await self._send(request or self._request, limits, path)
                    case Prefer(path):
                        self._wire.prefer(self._request, path)
                    case Wait(seconds):
                        if seconds:
                            await self._sleep(seconds)
                    case LowerPing(interval):
                        if self._exchange:
                            self._exchange.lower_ping(interval)
                    case Drop():
                        await self._drop()
                    case Notify(event):
                        notify(event, self._on_retry, self._on_path)
                    case Restart(attempt):
                        assert self._on_restart is not None, "it is asked for where there is one"
                        self._turn.restarted(self._on_restart(attempt))
                    case Fail(error):
                        self._over = True
                        await self._part()
                        error.report = self._turn.report
                        raise error
        except BaseException:
            await self.aclose()
            raise

    async def _send(self, request: Request, limits: Limits, path: int) -> None:
        self._path = path
        exchange = self._exchange = self._wire.exchange(request, path)
        self._check_open()
        try:
            came = await exchange.send(limits)
        except WireError as exc:
            self._lose(exchange, exc)
        else:
            self._take(exchange, came)

    async def _read(self, limits: Limits) -> None:
        exchange = self._exchange
        assert exchange is not None, "a turn sends before it reads"
        try:
            came = await exchange.read(limits)
        except WireError as exc:
            self._lose(exchange, exc)
        else:
            self._take(exchange, came)

    def _take(self, exchange: AsyncExchange, came: Head | bytes | PathEvent) -> None:
        now = self._clock()
        match came:
            case b"":
                self._check_open()
                self._turn.end(now, exchange.path.silent(now), exchange.path.record)
            case bytes():
                self._turn.data(came, now)
            case Head():
                self._turn.head(came, now, exchange.path.record)
            case _:
                self._turn.noticed(came, now)

    def _lose(self, exchange: AsyncExchange, error: WireError) -> None:
        self._check_open()
        now, path = self._clock(), exchange.path
        silent = path.silent(now)
        self._turn.lost(error.failure, error.detail, now, sent=path.sent, silent=silent, route=path.record)

    def _check_open(self) -> None:
        """Errors after :meth:`aclose` are caused by the close: report the close, not the error."""
        if self._left:
            raise StateError("the turn was closed before its end")

    async def _part(self) -> None:
        """Ask the server for what is to be asked when the turn is over, whether or not the caller waits for it."""
        if not self._turn.partings or self._parts:
            return
        self._parts = True
        until = self._clock() + PARTING_TIME
        async with AsyncShield():
            for parting in self._turn.partings:
                self._turn.parted(parting, acknowledged=await self._acknowledges(parting.request, until))

    async def _acknowledges(self, request: Request, until: float) -> bool:
        """Send a request until the server answers it, three times at most; return whether it does as it is asked."""
        for attempt in range(PARTING_TRIES):
            if attempt:
                await self._sleep(min(0.2 * attempt, max(0.0, until - self._clock())))
            if (status := await self._status(request, until)) in DECIDED:
                return status < 300
        return False

    async def _status(self, request: Request, until: float) -> int:
        """Send a request, and return the status of its response, 0 if none came in time."""
        exchange, limits = self._wire.exchange(request, self._path), limits_until(until, self._clock())
        try:
            came: Head | bytes | PathEvent = await exchange.send(limits)
            while not isinstance(came, Head):
                came = await exchange.read(limits)
        except (WireError, UsageError):
            return 0
        finally:
            await exchange.aclose()
        return came.status

    async def _drop(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange:
            await exchange.aclose()

    @property
    def _was_sent(self) -> bool:
        return self._exchange is not None and self._exchange.path.sent
