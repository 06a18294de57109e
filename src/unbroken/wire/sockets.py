"""What is done to sockets in every loop: tuning, closing, asking whether something has come, waking a thread."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import sys
import time
from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

CHUNK = 64 * 1024
"""Bytes that are read at a time."""

_ABORT = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

_LONGEST_PROBING = 32_000.0
"""Seconds; about the longest that Linux accepts for keepalive."""

_MAX_PROBES = 127
"""The most that Linux accepts."""

_ONE_WAIT_ON_WINDOWS = 0.025
"""Seconds; there, neither Ctrl-C nor :func:`wake` interrupts a wait."""


def tune(sock: socket.socket, interval: float, timeout: float) -> None:
    """Let the kernel check the path too: TCP keepalive, and a limit for unacknowledged data.

    Args:
        sock: a TCP socket, connected or not.
        interval: seconds of silence before a probe and, if the timeout allows it, between probes; rounded up to a
            second.
        timeout: seconds after which unacknowledged data or probes mean that the path is dead.
    """
    interval, timeout = min(interval, _LONGEST_PROBING), min(timeout, _LONGEST_PROBING)  # limits may be infinite
    first = max(1, round(interval))
    seconds = max(first, math.ceil(timeout / _MAX_PROBES))  # or else the kernel would give up before the timeout
    probes = max(1, round(timeout / seconds))
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE" if sys.platform != "darwin" else "TCP_KEEPALIVE", first),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", seconds),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", probes),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", round((interval + timeout) * 1000)),
    ]
    for level, name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # ignore an option that this system lacks
                sock.setsockopt(level, option, value)


def readable(sock: socket.socket) -> bool:
    """Return whether a read would return at once. If so, an idle connection has been closed, or soon will be."""
    if sock.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def close(sock: socket.socket, *, abort: bool = False) -> None:
    """Close a socket.

    Args:
        sock: may be closed already. No other thread may be waiting in it: it would go on waiting, perhaps in another
            socket that has the same number by then. See :func:`wake`.
        abort: reset the connection, without a FIN before. A FIN says only that nothing more will be *sent*: many
            proxies (such as v2ray) then let the response go on for some time, and its cost.
    """
    if abort:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    sock.close()


class Waits(NamedTuple):
    """What a step waits for: one of these sockets, or the time.

    Attributes:
        readers: sockets on which something is to come.
        writers: sockets on which there is to be room, or a connection.
        seconds: how long at most.
    """

    readers: list[socket.socket]
    writers: list[socket.socket]
    seconds: float


Steps: TypeAlias = Generator[Waits, None, T]
"""Work in steps that do not block. A step may be taken before what it waits for has come."""


def run(steps: Steps[T]) -> T:
    """Take all steps, blocking the thread. Ctrl-C ends it, and closes what they have opened."""
    with contextlib.closing(steps):
        while True:
            try:
                waits = next(steps)
            except StopIteration as done:
                result: T = done.value
                return result
            wait_for(waits)


def wait_for(waits: Waits) -> None:
    """Block until one of the sockets is ready, or the time is over. Ctrl-C and :func:`wake` interrupt it."""
    readers, writers, seconds = waits
    if sys.platform == "win32":
        if readers or writers:  # it accepts no empty lists
            select.select(readers, writers, [*readers, *writers], min(seconds, _ONE_WAIT_ON_WINDOWS))
        else:
            time.sleep(min(seconds, _ONE_WAIT_ON_WINDOWS))
        return
    poll = select.poll()
    for sock in readers:
        poll.register(sock, select.POLLIN | select.POLLOUT if sock in writers else select.POLLIN)
    for sock in writers:
        if sock not in readers:
            poll.register(sock, select.POLLOUT)
    poll.poll(seconds * 1000)


def wake(sock: socket.socket) -> None:
    """Wake the thread that is in :func:`wait_for`."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # which the other side does not see
