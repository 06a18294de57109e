"""Name resolution and connecting that a Ctrl-C, a cancellation and a deadline can interrupt.

``getaddrinfo`` blocks inside C, without a timeout and without handling signals; so it runs on a daemon thread, which a
caller can abandon and for which the interpreter does not wait at its end. Addresses are then tried in parallel, a
quarter of a second apart (RFC 8305, "Happy Eyeballs"): a broken IPv6 costs that much, not ten seconds.

:class:`Lookup` and :class:`Race` also serve ``async_resolving``, which waits for them in its own way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from unbroken.wire.sockets import Steps, Waits, readable

STAGGER = 0.25
"""Seconds between attempts on different addresses (RFC 8305, section 5)."""

SLICE = 0.02
"""Longest single wait, in seconds, so that a close from another thread is noticed."""

Address = tuple[socket.AddressFamily, Any]
"""A family and its address for :meth:`socket.socket.connect`."""

Remaining = Callable[[], float]
"""A function that returns how many seconds may be waited now; it raises when it is time to give up."""


def connect(host: str, port: int, remaining: Remaining) -> Steps[socket.socket]:
    """Connect by TCP, in steps; the socket is non-blocking.

    Args:
        host: name or address.
        port: TCP port.
        remaining: how long to wait.

    Raises:
        OSError: no address could be reached; the first failure is raised. :class:`socket.gaierror` is one.
    """
    addresses = yield from resolve(host, port, remaining)
    return (yield from connect_to(addresses, remaining))


def connect_to(addresses: list[Address], remaining: Remaining) -> Steps[socket.socket]:
    """Connect to whichever of these addresses answers first, in steps; the socket is non-blocking.

    Raises:
        OSError: no address could be reached; the first failure is raised.
    """
    with Race(addresses) as race:
        while True:
            wait = race.start_due(time.monotonic())
            yield Waits([], race.running, min(wait, remaining(), SLICE))
            if winner := race.winner():
                return winner


def resolve(host: str, port: int, remaining: Remaining) -> Steps[list[Address]]:
    """Find the addresses of a host, in steps.

    Raises:
        socket.gaierror: no such host, or no answer.
    """
    if is_address(host):
        return look_up(host, port)
    with Lookup() as lookup:
        lookup.start(host, port)
        while not readable(lookup.bell):
            yield Waits([lookup.bell], [], min(remaining(), SLICE))
        return lookup.result()


def look_up(host: str, port: int) -> list[Address]:
    """Ask the system's resolver, which may block for long.

    Raises:
        socket.gaierror: no such host, or no answer.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that is empty or too long for the DNS
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return [(family, address) for family, _, _, _, address in found]


def is_address(host: str) -> bool:
    """Return whether ``host`` is an IP address rather than a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False


class Lookup:
    """A lookup on a daemon thread. Leaving the context abandons it; only the thread remains.

    Attributes:
        bell: a socket that becomes readable when the result is there.
    """

    def __init__(self) -> None:
        self.bell, self._rope = socket.socketpair()
        self._lock = threading.Lock()
        self._outcome: list[Address] | OSError = OSError("not looked up yet")

    def start(self, host: str, port: int) -> None:
        """Start the thread. This takes a while: do it inside the context, where a Ctrl-C leaks no socket."""
        threading.Thread(target=self._run, args=(host, port), name="unbroken-resolve", daemon=True).start()

    def result(self) -> list[Address]:
        """Return the addresses, once :attr:`bell` is readable.

        Raises:
            socket.gaierror: no such host, or no answer.
        """
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self.bell.close()
            self._rope.close()

    def _run(self, host: str, port: int) -> None:
        try:
            self._outcome = look_up(host, port)
        except OSError as exc:
            self._outcome = exc
        with self._lock:
            if self._rope.fileno() >= 0:
                self._rope.send(b"!")


class Race:
    """Connection attempts to several addresses, each a little after the one before; the first that connects wins.

    Leaving the context closes every socket but the winner's.

    Attributes:
        running: the sockets that are still connecting.
    """

    def __init__(self, addresses: list[Address]) -> None:
        self.running: list[socket.socket] = []
        self._waiting = deque(interleaved(addresses))
        self._next_start = 0.0
        self._failure: OSError | None = None

    def start_due(self, now: float) -> float:
        """Start the attempts that are due; return the seconds until the next one is.

        Raises:
            OSError: every address has failed.
        """
        while self._waiting and now >= self._next_start:
            self._next_start = now + STAGGER
            self._start(*self._waiting.popleft())
        if self._waiting:
            return self._next_start - now
        if not self.running:
            raise self._failure or OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return float("inf")

    def winner(self) -> socket.socket | None:
        """Return a socket that has connected, if one has."""
        with selectors.DefaultSelector() as selector:
            for sock in self.running:
                selector.register(sock, selectors.EVENT_WRITE)
            ready = selector.select(0)
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            self.running.remove(key.fileobj)
            code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return key.fileobj
            key.fileobj.close()
            self._lose(OSError(code, os.strerror(code)))
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in self.running:
            sock.close()

    def _start(self, family: socket.AddressFamily, address: Any) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as exc:  # a family that this machine does not have
            self._lose(exc)
            return
        self.running.append(sock)
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self.running.remove(sock)
            sock.close()
            self._lose(OSError(code, os.strerror(code)))

    def _lose(self, failure: OSError) -> None:
        self._failure = self._failure or failure
        self._next_start = 0.0


def interleaved(addresses: list[Address]) -> list[Address]:
    """Return IPv6 and IPv4 in turn, the resolver's first family first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    longest = max(len(first), len(other))
    return [family[i] for i in range(longest) for family in (first, other) if i < len(family)]
