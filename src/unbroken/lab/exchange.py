"""One response: performs the steps of a script, in any protocol, and records the outcome."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from unbroken.lab.condition import Condition
from unbroken.lab.fault import Fault
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.script import Break, EndBody, SendBody, SendHead, Silence, Step


class ClientGoneError(Exception):
    """The client left before the response was complete."""


class ServerExchange(ABC):
    """The response to one request. Subclasses write it in a protocol.

    Attributes:
        record: the request.
        gone: set when the client has left.
    """

    def __init__(self, stream: RawStream, record: RecordedRequest, condition: Condition, gone: asyncio.Event) -> None:
        self.record = record
        self.gone = gone
        self._stream = stream
        self._condition = condition

    async def perform(self, steps: Iterable[Step]) -> None:
        """Perform the steps until they end or the client leaves."""
        try:
            for step in steps:
                await self._perform_step(step)
        except (ClientGoneError, OSError):
            self.note_gone()
        else:
            self.note_done()

    async def perform_live(self, steps: AsyncGenerator[Step]) -> None:
        """Perform steps as they come, until they end; once the client leaves, none is waited for any longer."""
        playing = asyncio.create_task(self._perform_all(steps))
        leaving = asyncio.create_task(self.gone.wait())
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done():
                raise ClientGoneError
            await playing
        except (ClientGoneError, OSError):
            self.note_gone()
        else:
            self.note_done()
        finally:
            for task in (playing, leaving):
                task.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)

    async def _perform_all(self, steps: AsyncGenerator[Step]) -> None:
        async with aclosing(steps):
            async for step in steps:
                await self._perform_step(step)

    def note_done(self) -> None:
        """Record that the upstream has finished with this request, unless its client has left."""
        if not self.record.gone and not self.record.done:
            with self._condition.change():
                self.record.done_at = time.monotonic()

    def note_gone(self) -> None:
        """Record that the client has left, unless the upstream had finished with the request."""
        if not self.record.gone and not self.record.done:
            with self._condition.change():
                self.record.gone_at = time.monotonic()

    async def _perform_step(self, step: Step) -> None:
        match step:
            case SendHead():
                await self._send_head(step)
            case SendBody():
                await self._send_body(step.data)
            case Silence():
                await self._keep_silent(step.seconds)
            case EndBody():
                await self._send_end()
            case Break():
                await self._break(step.fault)

    async def _keep_silent(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.gone.wait(), None if math.isinf(seconds) else seconds)
        except TimeoutError:
            return
        raise ClientGoneError

    def _note_head(self) -> None:
        with self._condition.change():
            self.record.head_sent_at = time.monotonic()

    def _note_sent(self, data: bytes) -> None:
        # Record before sending: a client never has bytes that the record does not have yet.
        with self._condition.change():
            self.record.add_sent(data)

    async def _break(self, fault: Fault) -> None:
        """Break the connection, in the ways that are the same in every protocol."""
        if fault.kind == "rst":
            self._stream.reset()
        else:
            await self._stream.shut(close_notify=fault.close_notify)

    @abstractmethod
    async def _send_head(self, head: SendHead) -> None:
        """Send the status and the headers, and record it."""

    @abstractmethod
    async def _send_body(self, data: bytes) -> None:
        """Send a piece of the body, and record it."""

    @abstractmethod
    async def _send_end(self) -> None:
        """End the body."""
