"""The loop for asyncio: the event loop calls when something has come, whether somebody waits for it or not.

So PING goes on while the caller does not read. There is one future for the task that waits and one timer, which is not
touched while bytes come. Bytes may also be poured: handed on from the event loop's call, without waking the task.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.clock import clock
from unbroken.wire.connection import Connection
from unbroken.wire.http1 import Http1
from unbroken.wire.monitor import Monitor
from unbroken.wire.sockets import close
from unbroken.wire.stream import BaseStream

MAX_UNTAKEN = 512 * 1024
"""Bytes of a body that may come before the caller takes any; HTTP/2 limits them by its window."""

MAX_AT_ONCE = 256 * 1024
"""Bytes that are read before other connections get their turn, where the caller takes them as they come."""

ERROR_CHECK_DELAY = 0.05
"""Seconds after poured bytes to ask for an error that came with them: to ask at once would cost a system call more for
each event of a fast stream."""


class AsyncioStream(BaseStream):
    """A network stream in an event loop."""

    def __init__(self, sock: socket.socket, connection: Connection, monitor: Monitor) -> None:
        super().__init__(sock, connection, monitor)
        self._loop = asyncio.get_running_loop()
        self._fd = sock.fileno()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._error_check: asyncio.TimerHandle | None = None
        self._keeps_deadlines = False
        self._reads = True
        self._writes = False
        self._sink: Callable[[bytes], bool] | None = None
        self._loop.add_reader(self._fd, self._on_readable)

    async def wait(self) -> None:
        """Wait until something has come, all that was to be sent is sent, or something is to be reported of the path.

        Raises:
            WireError: nothing more will come, or a deadline has passed.
        """
        self.flush()
        if self.failure:
            raise self.failure
        if self.monitor.event:
            return
        if not self._reads:
            self._reads = True
            self._loop.add_reader(self._fd, self._on_readable)
        self._waiter = self._loop.create_future()
        if not self._keeps_deadlines:
            self._on_timer()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def pour(self, sink: Callable[[bytes], bool]) -> None:
        """Call ``sink`` with the bytes of the body as they come, until it returns false or nothing more will come.

        Raises:
            WireError: nothing more will come, or a deadline has passed.
        """
        self._sink = sink
        try:
            await self.wait()
        finally:
            self._sink = None

    def flush(self) -> None:
        """Send what is to be sent; what the network does not accept now is sent later."""
        self.send()
        if self._unsent and not self._writes:
            self._writes = True
            self._loop.add_writer(self._fd, self._on_writable)
        elif self._writes and not self._unsent:
            self._writes = False
            self._loop.remove_writer(self._fd)

    def relimit(self) -> None:
        """Take note of other limits."""
        self._keeps_deadlines = False

    def detach(self) -> None:
        """Leave the socket to another stream."""
        self._keeps_deadlines = False
        for timer in (self._timer, self._error_check):
            if timer:
                timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1

    def close(self, *, abort: bool = False) -> None:
        """Close the socket now, in any state; see :func:`unbroken.wire.sockets.close`."""
        self.failure = WireError(Failure.CANCELLED)
        self.detach()
        close(self.sock, abort=abort)
        self._wake()

    def _on_readable(self) -> None:
        clock.woke(self._timer_due)
        # Until nothing is left: where an error came with the bytes, uvloop does not call again. While they are poured,
        # that is looked for a little later.
        before = self.connection.received
        while self.receive() and not self.failure and not self._is_full:
            if self._sink and self._pour(self._sink):
                if self._took_all:
                    self._check_for_error_later()
                    break
                if self.connection.received - before > MAX_AT_ONCE:
                    self._loop.call_soon(self._read_on)
                    break
        if self._unsent or not self.connection.listens_only:
            self.flush()
        if self.failure or self._is_full:
            self._stop_reading()
        if self._sink is None or self.failure or self.monitor.event:
            self._wake()

    def _check_for_error_later(self) -> None:
        if self._error_check is None:
            self._error_check = self._loop.call_later(ERROR_CHECK_DELAY, self._check_for_error)

    def _check_for_error(self) -> None:
        self._error_check = None
        self._read_on()

    def _read_on(self) -> None:
        if self._reads and self._fd >= 0:
            self._on_readable()

    def _pour(self, sink: Callable[[bytes], bool]) -> bool:
        """Hand what has come to the sink; return whether it takes more. If not, the task goes on."""
        http = self.http
        if (not (data := http.take()) or sink(data)) and not http.ended:
            return True
        self._sink = None
        return False

    @property
    def _is_full(self) -> bool:
        """Whether the caller must take something before more is read."""
        http = self.connection.http
        return isinstance(http, Http1) and http.untaken > MAX_UNTAKEN

    def _on_writable(self) -> None:
        self.flush()
        if not self.sending:
            self.relimit()  # the caller's timeout of reading may be shorter than that of writing
            self._wake()

    def _on_timer(self) -> None:
        """Enforce the deadlines if somebody waits, send PING in any case, and look again when it is time."""
        if self._timer:
            self._timer.cancel()
        clock.woke(self._timer_due)
        self._timer_due = math.inf
        now, monitor = clock(), self.monitor
        if self._waiter is not None:
            self.watch(now)
            try:
                monitor.check(now, sending=self.sending)
            except WireError as exc:
                self.fail(exc)
                self._wake()
                return
            if monitor.event:
                self._wake()
        http = self.connection.http
        if self.failure or (http is not None and http.ended):
            return
        if monitor.ping_is_due(now):
            self.ping(now)
            self.flush()
        self._keeps_deadlines = self._waiter is not None
        delay = monitor.wait(now, sending=self.sending) if self._keeps_deadlines else monitor.until_ping(now)
        self._timer = None
        if delay is not None:
            self._timer, self._timer_due = self._loop.call_later(delay, self._on_timer), now + delay

    def _stop_reading(self) -> None:
        if self._reads and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._reads = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
