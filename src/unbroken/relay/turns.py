"""One generation call: the upstream's turn on one side, the client's reply on the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from unbroken.core.attempt import MAX_REFUSAL
from unbroken.core.deadlines import READ_REFUSAL
from unbroken.core.dialect import Call, GatewayError
from unbroken.core.failures import Phase
from unbroken.core.http import Head, Headers
from unbroken.core.payload import mapping, only_object
from unbroken.drivers.notices import background
from unbroken.drivers.pouring import PouringDriver
from unbroken.errors import TurnError, UsageError
from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest
from unbroken.relay.errors import STOPPED, gateway_error
from unbroken.relay.recorder import Outcome, RequestRecord, outcome_of
from unbroken.relay.reply import Reply

if TYPE_CHECKING:
    from unbroken.relay.kept.turn import KeptTurn

LAST_WORDS = 1.0
"""Seconds for a turn to report to its client why it ends, when the relay is stopped."""


_AT_ONCE = ((b"retry-after", b"0"),)


class RelayedTurn:
    """A turn while it runs, and its record.

    Args:
        turn_id: its id.
        incoming: the client's request.
        upstream: name of the upstream.
        call: the generation call.
        driver: the upstream's side, not yet opened.
        reply: the client's side.
        clock: monotonic seconds, the clock of the driver and the reply.
        kept: what lets it outlive its client, ``None`` if it ends with it.

    Attributes:
        id: its id.
        driver: the upstream's side.
        reply: the client's side.
        outcome: how it ended, ``None`` while it runs.
        detail: one line for a person if it failed, or ``""``.
    """

    def __init__(
        self,
        turn_id: str,
        incoming: ClientRequest,
        upstream: str,
        call: Call,
        driver: PouringDriver,
        reply: Reply,
        clock: Callable[[], float] = time.monotonic,
        kept: KeptTurn | None = None,
    ) -> None:
        self.id = turn_id
        self.driver = driver
        self.reply = reply
        self.outcome: Outcome | None = None
        self.detail = ""
        self._incoming = incoming
        self._upstream = upstream
        self._call = call
        self._clock = clock
        self._kept = kept
        self._until_left = kept.cancelled_once_unwanted if kept else incoming.cancelled_by_leaving
        self._began = clock()
        self._started = time.time()
        self._ended: float | None = None
        self._broken = False
        self._had_all = False

    async def run(self) -> None:
        """Run the turn to its end.

        Raises:
            asgi.Broken: the reply is not whole.
        """
        try:
            # The upstream request is cancelled once no client is waiting for it: it would be billed for nothing.
            async with self.driver, self._until_left(self._client_left):
                await self._run_upstream()
        except anyio.get_cancelled_exc_class():
            await self._stop()
            raise
        finally:
            if self.outcome is None:
                self.outcome = outcome_of(self.driver.report, None) if self._had_all else Outcome.LEFT
            self._ended = self._clock()
        if self._broken:
            raise asgi.Broken

    def hand_over(self) -> None:
        """Leave the turn, as this relay ends, to the one at which its client asks again, if it can go on there."""
        has_spoken = self.reply.has_spoken
        if self.outcome is None and self._kept and self._kept.hand_over(has_spoken=has_spoken) and has_spoken:
            self.driver.leave_running()

    def record(self) -> RequestRecord:
        """Return the current record of the turn."""
        report = self.driver.report
        running = self.driver.running if self.outcome is None else None
        attempts = (*report.attempts, *([running] if running else []))
        first_outputs = (one.after + one.output_after for one in attempts if one.output_after is not None)
        return RequestRecord(
            id=self.id,
            started=self._started,
            elapsed=(self._clock() if self._ended is None else self._ended) - self._began,
            method=self._incoming.method,
            path=self._incoming.path,
            upstream=self._upstream,
            dialect=self._call.dialect.name,
            streaming=self._call.streaming,
            status=self.reply.status,
            outcome=self.outcome,
            first_output=next(first_outputs, None),
            bytes_in=self._incoming.received,
            bytes_out=self.reply.bytes,
            heartbeats=self.reply.heartbeats,
            attempts=attempts,
            retries=report.retries,
            replays=report.replays,
            seams=tuple(seam.character for seam in report.seams),
            resumes=tuple(resume.after for resume in report.resumes),
            background=background(report),
            unacknowledged=report.background.unacknowledged if report.background else (),
            detail=self.detail,
            suspicion=self.driver.progress.suspicion if self.outcome is None else "",
        )

    def quiet_since(self, *, early: bool) -> float | None:
        """Return since when nothing was sent to the client; ``None`` while no heartbeat may be sent.

        Args:
            early: whether a heartbeat may be sent before the upstream has answered.
        """
        if not self.reply.takes_heartbeats or self.outcome is not None:
            return None
        if self.reply.begun:
            return self.reply.sent_at
        if early:
            return self._began
        running = self.driver.running if self.driver.phase in (Phase.PRELUDE, Phase.OUTPUT) else None
        if running is None or (running.phase is Phase.OUTPUT and not running.held):
            return None
        if running.headers_after is None or not 200 <= (running.status or 0) < 300:
            return None
        return self._began + running.after + running.headers_after

    def _client_left(self) -> bool:
        """Note whether the client had all: many leave once they have the whole answer, before its body has ended."""
        is_sent = not (self.reply.busy or self.driver.withholds)
        self._had_all = is_sent and self.driver.phase in (Phase.SETTLED, Phase.COMPLETE)
        return self._had_all

    async def _run_upstream(self) -> None:
        try:
            await self._relay_response()
        except TurnError as exc:
            await self._fail(outcome_of(self.driver.report, exc), gateway_error(exc), detail=str(exc))
        except UsageError as exc:  # the relay's proxy or CA file cannot be used
            await self._fail(Outcome.UNREACHABLE, gateway_error(exc))
        except OSError:
            pass  # the client has gone (ASGI, "Disconnected client - send exception")

    async def _relay_response(self) -> None:
        driver, reply = self.driver, self.reply
        head = await driver.open()
        if not reply.suits(head, is_stream=driver.is_stream):
            await self._report_late(head)
            return
        await reply.begin(head, driver.report, is_stream=driver.is_stream)
        async for chunk in driver:
            await reply.hand_on(chunk)
            if reply.pours:
                await driver.pour(reply.pour)
        await reply.end()
        self.outcome = outcome_of(driver.report, None)

    async def _report_late(self, head: Head) -> None:
        """Report by an event a response that came after a heartbeat had begun the reply."""
        if head.status < 400:
            message = f"the server answered {head.status} with {head.content_type or 'no content'}"
            await self._fail(Outcome.UNEXPECTED, GatewayError(502, "unexpected_response", message))
            return
        body = await self._refusal()
        error = self._call.dialect.read_error(head.status, body)
        document = only_object(body)
        original = document if mapping(document.get("error")) else None
        late = GatewayError(head.status, error.kind or "provider_error", error.message, original=original)
        # The provider's message may quote the request: it is for the client, not for the log.
        await self._fail(Outcome.REFUSED, late, detail=f"HTTP {head.status}, too late for a status")

    async def _refusal(self) -> bytes:
        """Read the body of an error response, as far as it comes: the status is enough without it."""
        body = bytearray()
        with contextlib.suppress(TurnError), anyio.move_on_after(READ_REFUSAL):
            async for chunk in self.driver:
                body += chunk
                if len(body) > MAX_REFUSAL:
                    break
        return bytes(body)

    async def _fail(self, outcome: Outcome, error: GatewayError, detail: str = "", fields: Headers = ()) -> None:
        self.outcome, self.detail = outcome, detail or error.message
        try:
            await self.reply.fail(error, self.driver.report, fields)
        except (asgi.Broken, OSError):
            self._broken = True

    async def _stop(self) -> None:
        """Report to the client that the relay is stopped. Where there may be others, it is to come back at once."""
        if self.outcome is None:
            fields = _AT_ONCE if self._kept and self._kept.outlives_relay else ()
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await self._fail(Outcome.STOPPED, STOPPED, fields=fields)
