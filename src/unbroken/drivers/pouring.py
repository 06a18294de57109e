"""A driver that can hand bytes on from the event loop's callback, without waking its task for each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from unbroken.core.actions import Limits
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.errors import WireError

Pour: TypeAlias = Callable[[Limits, Callable[[bytes], bool]], Awaitable[None]]
"""See :meth:`unbroken.wire.contract.PouringExchange.pour`."""


class PouringDriver(AsyncDriver):
    """An :class:`AsyncDriver` whose bytes may also be poured; arguments as there."""

    @property
    def withholds(self) -> bool:
        """Whether bytes have come that may be handed on, but were not yet: the next iteration returns them."""
        return self._turn.withholds

    def leave_running(self) -> None:
        """Have a response that goes on at the server do so once the turn is closed: somebody else takes it up."""
        self._parts = True

    async def pour(self, write: Callable[[bytes], bool]) -> None:
        """Hand on bytes as they come, while there is nothing to decide; then iterate on for what follows them.

        Args:
            write: takes bytes at once, called between two tasks, or returns false, and takes none of them: then the
                next iteration returns them.
        """
        turn, clock, exchange = self._turn, self._clock, self._exchange
        pour: Pour | None = getattr(exchange, "pour", None)
        limits = turn.flowing
        if exchange is None or pour is None or limits is None or self._left:
            return

        def sink(chunk: bytes) -> bool:
            try:
                data = turn.pour(chunk, clock())
                if data is None:
                    return False
                if data and not write(data):
                    turn.put_back(data)
                    return False
            except Exception as exc:  # noqa: BLE001 - it is raised in the task, not in the event loop
                raised.append(exc)
            return not raised

        raised: list[Exception] = []
        try:
            await pour(limits, sink)
            if raised:
                raise raised[0]
        except WireError as exc:
            self._lose(exchange, exc)
        except BaseException:
            await self.aclose()
            raise
