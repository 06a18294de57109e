"""One request over the wire whose answer costs nothing: the list of models, the findings of a relay."""

from __future__ import annotations

import contextlib
import math

from unbroken.core.actions import Limits
from unbroken.core.http import Head, Request
from unbroken.core.suspicion import PathEvent
from unbroken.wire.clock import clock
from unbroken.wire.http import HttpWire


def fetch(wire: HttpWire, request: Request, *, connect: float, answer: float, most: int = 0) -> tuple[Head, bytes]:
    """Return the head of the answer, and its body.

    Args:
        wire: closed at the end.
        request: the request.
        connect: seconds for the connection.
        answer: seconds for the answer, beyond those for the connection.
        most: after so many bytes of the body no more is read; 0 for the head alone.

    Raises:
        WireError: the answer does not come.
        UsageError: the proxy or the CA file cannot be used.
    """
    limits = Limits(connect=connect, idle=answer, until=clock() + connect + answer, ping=0.0, ping_timeout=math.inf)
    head, body = None, bytearray()
    with contextlib.closing(wire), contextlib.closing(wire.exchange(request, 0)) as exchange:
        found: Head | bytes | PathEvent = exchange.send(limits)
        while True:
            if isinstance(found, Head):
                head = found
            elif isinstance(found, bytes):
                body += found
            if head and (found == b"" or len(body) >= most):
                return head, bytes(body)
            found = exchange.read(limits)
