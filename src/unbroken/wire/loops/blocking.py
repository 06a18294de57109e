"""The loop for threads. Ctrl-C and :meth:`BlockingStream.interrupt` end a wait."""

from __future__ import annotations

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.sockets import wait_for, wake
from unbroken.wire.stream import BaseStream


class BlockingStream(BaseStream):
    """A network stream that blocks its thread. While the thread is elsewhere, no PING is sent."""

    def wait(self) -> None:
        """Wait until something has come.

        Raises:
            WireError: nothing more will come, or a deadline has passed.
        """
        while not self.failure:
            seconds = self.look()
            self.send()
            wait_for(self.sock, seconds, writable=bool(self._unsent))
            if self.receive():
                return self.send()
        raise self.failure

    def interrupt(self) -> None:
        """Let the thread that waits fail. It may be called by another thread."""
        self.failure = WireError(Failure.CANCELLED)
        wake(self.sock)
