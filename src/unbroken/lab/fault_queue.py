"""Which connection and which request gets a fault, and what a fault does to a connection before its first request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from unbroken.lab.fault import CONNECTION_POINTS, Fault, Point
from unbroken.lab.raw_stream import RawStream


class FaultQueue:
    """The faults of a server, in order.

    Args:
        faults: None for no fault.
    """

    def __init__(self, faults: Iterable[Fault | None]) -> None:
        self._faults = deque(faults)

    def take_for_connection(self) -> Fault | None:
        """Take the fault of a connection that was just accepted, if the next fault is for a connection."""
        if self._faults and self._faults[0] is not None and self._faults[0].at in CONNECTION_POINTS:
            return self._faults.popleft()
        return None

    def take_for_request(self) -> Fault | None:
        """Take the next fault that is not for a later connection."""
        for index, fault in enumerate(self._faults):
            if fault is None or fault.at not in CONNECTION_POINTS:
                del self._faults[index]
                return fault
        return None


async def survives(stream: RawStream, fault: Fault | None, at: Point) -> bool:
    """Apply the fault to a connection, if it is for this point; return whether the connection goes on."""
    if fault is None or fault.at != at:
        return True
    if fault.kind == "stall" or fault.seconds is not None:
        await stream.wait_until_left(fault.seconds)
    match fault.kind:
        case "rst":
            await stream.wait_until_heard()
            stream.reset()
        case "raw":
            await stream.send(fault.body or b"")
        case "fin" | "stall":
            await stream.shut(close_notify=fault.close_notify)
        case _:
            pass
    return fault.kind in ("pause", "raw")
