"""The loop for trio, over anyio; it also serves asyncio's event loop for Windows, which cannot watch sockets."""

from __future__ import annotations

import contextlib

import anyio

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.clock import clock
from unbroken.wire.sockets import close
from unbroken.wire.stream import BaseStream


class TrioStream(BaseStream):
    """A network stream that is driven by the task that waits for it. While none waits, no PING is sent."""

    _waiting: anyio.CancelScope | None = None

    async def wait(self) -> None:
        """Wait until something has come, all that was to be sent is sent, or something is to be reported of the path.

        Raises:
            WireError: nothing more will come, or a deadline has passed.
        """
        was_sending = self.sending
        while not self.failure:
            seconds, due = self.look(), self._look_at
            if self.monitor.event:
                return
            self.send()
            await self._until_ready(seconds)
            clock.woke(due)
            if self.receive() or (was_sending and not self.sending):
                self.send()
                return
        raise self.failure

    def flush(self) -> None:
        """Send what is to be sent; what the network does not accept now is left to :meth:`wait`."""
        self.send()
        if self._unsent and self._waiting:
            self._waiting.cancel()

    def close(self, *, abort: bool = False) -> None:
        """Close the socket now, in any state; see :func:`unbroken.wire.sockets.close`."""
        self.failure = WireError(Failure.CANCELLED)
        if self.sock.fileno() >= 0:
            anyio.notify_closing(self.sock)
            close(self.sock, abort=abort)

    async def _until_ready(self, seconds: float) -> None:
        with anyio.move_on_after(seconds) as self._waiting, contextlib.suppress(anyio.ClosedResourceError):
            await (self._until_readable_or_writable() if self._unsent else anyio.wait_readable(self.sock))
        self._waiting = None

    async def _until_readable_or_writable(self) -> None:
        async with anyio.create_task_group() as tasks:

            async def until_writable() -> None:
                with contextlib.suppress(anyio.ClosedResourceError):
                    await anyio.wait_writable(self.sock)
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_writable)
            with contextlib.suppress(anyio.ClosedResourceError):
                await anyio.wait_readable(self.sock)
            tasks.cancel_scope.cancel()
