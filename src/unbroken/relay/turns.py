"""One generation call on its way through: the upstream's turn on one side, the client's reply on the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import anyio

from unbroken.core.attempt import MAX_REFUSAL
from unbroken.core.dialect import Call
from unbroken.core.dialects.payload import mapping, only_object
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.turn import READ_REFUSAL
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.errors import FirstOutputTimeout, TurnError, UsageError
from unbroken.relay import asgi
from unbroken.relay.inbound import Inbound
from unbroken.relay.records import Outcome, TurnRecord, outcome_of
from unbroken.relay.reply import Reply
from unbroken.relay.voices import Trouble

LAST_WORDS = 1.0
"""Seconds that a turn has to tell its client why it is ended, when the relay is stopped."""


class RelayedTurn:
    """A turn while it runs, and what is known of it.

    Args:
        turn_id: its name.
        upstream: name of the upstream.
        call: what is asked.
        driver: the upstream's side, not yet opened.
        reply: the client's side.
        clock: monotonic seconds, the driver's and the reply's.

    Attributes:
        id: its name.
        driver: the upstream's side.
        reply: the client's side.
        outcome: how it ended, ``None`` while it runs.
        detail: one line for a person where it failed, or ``""``.
    """

    def __init__(
        self,
        turn_id: str,
        upstream: str,
        call: Call,
        driver: AsyncDriver,
        reply: Reply,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = turn_id
        self.driver = driver
        self.reply = reply
        self.outcome: Outcome | None = None
        self.detail = ""
        self._upstream = upstream
        self._call = call
        self._clock = clock
        self._began = clock()
        self._started = time.time()
        self._ended: float | None = None
        self._broken = False
        self._had_all = False

    async def run(self, inbound: Inbound) -> None:
        """Run it to its end.

        Raises:
            asgi.Broken: the reply is not whole.
        """
        try:
            async with self.driver, anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_with_client, inbound, tasks.cancel_scope)
                await self._forward()
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            await self._stop()
            raise
        finally:
            if self.outcome is None:
                self.outcome = outcome_of(self.driver.report, None) if self._had_all else Outcome.LEFT
            self._ended = self._clock()
        if self._broken:
            raise asgi.Broken

    def record(self) -> TurnRecord:
        """What is known of it now."""
        running = self.driver.running if self.outcome is None else None
        attempts = (*self.driver.report.attempts, *([running] if running else []))
        spoken = (attempt.after + attempt.output_after for attempt in attempts if attempt.output_after is not None)
        return TurnRecord(
            id=self.id,
            started=self._started,
            elapsed=(self._clock() if self._ended is None else self._ended) - self._began,
            upstream=self._upstream,
            dialect=self._call.dialect.name,
            streaming=self._call.streaming,
            outcome=self.outcome,
            first_output=next(spoken, None),
            bytes=self.reply.bytes,
            heartbeats=self.reply.heartbeats,
            attempts=attempts,
        )

    def quiet_since(self, *, early: bool) -> float | None:
        """Since when the client has heard nothing although it may; ``None`` while nothing may be said.

        Args:
            early: whether something may be said before the upstream has answered.
        """
        if not self.reply.takes_heartbeats or self.outcome is not None:
            return None
        if self.reply.begun:
            return self.reply.sent_at
        if early:
            return self._began
        running = self.driver.running if self.driver.phase is Phase.PRELUDE else None
        if running is None or running.headers_after is None or not 200 <= (running.status or 0) < 300:
            return None
        return self._began + running.after + running.headers_after

    async def _end_with_client(self, inbound: Inbound, scope: anyio.CancelScope) -> None:
        """Nobody is left to answer: the upstream is not to work, and be paid, for nobody."""
        await inbound.left()
        # Many clients leave once they have the whole answer, before its body has ended.
        self._had_all = self.driver.phase in (Phase.SETTLED, Phase.COMPLETE) and not self.reply.busy
        scope.cancel()

    async def _forward(self) -> None:
        try:
            await self._hand_on()
        except TurnError as exc:
            await self._fail(outcome_of(self.driver.report, exc), trouble_of(exc))
        except UsageError as exc:  # the relay's proxy or CA file cannot be used
            await self._fail(Outcome.UNREACHABLE, Trouble(500, "misconfigured", str(exc)))
        except OSError:
            pass  # the client has gone: a server may say so like this (ASGI, "Disconnected client - send exception")

    async def _hand_on(self) -> None:
        driver, reply = self.driver, self.reply
        head = await driver.open()
        if not reply.suits(head):
            await self._tell_late(head)
            return
        await reply.begin(head, driver.report)
        async for chunk in driver:
            await reply.hand_on(chunk)
        await reply.end()
        self.outcome = outcome_of(driver.report, None)

    async def _tell_late(self, head: Head) -> None:
        """It is too late for this response: what an event can still carry of it."""
        if head.status < 400:
            said = f"the server answered {head.status} with {head.content_type or 'no content'}"
            await self._fail(Outcome.UNEXPECTED, Trouble(502, "unexpected_response", said))
            return
        body = await self._refusal()
        refusal = self._call.dialect.refusal(head.status, body)
        answer = only_object(body)
        own = answer if mapping(answer.get("error")) else None
        trouble = Trouble(head.status, refusal.kind or "provider_error", refusal.message, said=own)
        await self._fail(Outcome.REFUSED, trouble)
        self.detail = f"HTTP {head.status}, too late for a status"  # the provider's words may quote the request

    async def _refusal(self) -> bytes:
        """The body of an error response, as far as it comes: the status says enough without it."""
        body = bytearray()
        with contextlib.suppress(TurnError), anyio.move_on_after(READ_REFUSAL):
            async for chunk in self.driver:
                body += chunk
                if len(body) > MAX_REFUSAL:
                    break
        return bytes(body)

    async def _fail(self, outcome: Outcome, trouble: Trouble) -> None:
        self.outcome, self.detail = outcome, trouble.message
        try:
            await self.reply.fail(trouble, self.driver.report)
        except (asgi.Broken, OSError):
            self._broken = True

    async def _stop(self) -> None:
        """The relay is stopped: the turn's last words."""
        if self.outcome is None:
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await self._fail(Outcome.STOPPED, Trouble(503, "relay_stopped", "the relay was stopped", passing=True))


def trouble_of(error: TurnError) -> Trouble:
    """What a client is told of a failure: a gateway's statuses (RFC 9110, section 15.6)."""
    return Trouble(504 if isinstance(error, FirstOutputTimeout) else 502, error.code, str(error))
