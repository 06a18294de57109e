"""The loop for threads. Ctrl-C and :meth:`BlockingStream.interrupt` end a wait."""

from __future__ import annotations

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.clock import clock
from unbroken.wire.sockets import Steps, Waits, wait_for, wake
from unbroken.wire.stream import BaseStream


class Beside:
    """Work that goes on while a stream waits.

    Args:
        steps: the work; it is closed by whoever made it.
    """

    def __init__(self, steps: Steps[None]) -> None:
        self._steps = steps
        self._waits: Waits | None = next(steps, None)

    def with_others(self, waits: Waits) -> Waits:
        """Return what to wait for, so that neither this work nor another is late."""
        mine = self._waits
        if mine is None:
            return waits
        return Waits(
            waits.readers + mine.readers, waits.writers + mine.writers, max(0.0, min(waits.seconds, mine.seconds))
        )

    def step(self) -> None:
        """Take the next step."""
        if self._waits is not None:
            self._waits = next(self._steps, None)


class BlockingStream(BaseStream):
    """A network stream that blocks its thread. While the thread is elsewhere, no PING is sent."""

    def wait(self, beside: Beside | None = None) -> None:
        """Wait until something has come, or something is to be reported of the path.

        Args:
            beside: work that goes on meanwhile.

        Raises:
            WireError: nothing more will come, or a deadline has passed.
        """
        while not self.failure:
            waits, due = self._next_wait(), self._look_at
            if self.monitor.event:
                return
            wait_for(beside.with_others(waits) if beside else waits)
            clock.woke(due)
            if self.receive():
                self.send()
                return
            if beside:
                beside.step()
        raise self.failure

    def steps(self) -> Steps[None]:
        """Do as :meth:`wait`, in steps."""
        while not self.failure:
            waits, due = self._next_wait(), self._look_at
            yield waits
            clock.woke(due)
            if self.receive():
                return self.send()
        raise self.failure

    def interrupt(self) -> None:
        """Let the thread that waits fail. It may be called by another thread."""
        self.failure = WireError(Failure.CANCELLED)
        wake(self.sock)

    def _next_wait(self) -> Waits:
        seconds = self.look()
        self.send()
        return Waits([self.sock], [self.sock] if self._unsent else [], seconds)
