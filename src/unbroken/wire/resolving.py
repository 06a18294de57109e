"""Name resolution and connecting that a Ctrl-C, a cancellation and a deadline can interrupt.

``getaddrinfo`` blocks inside C, deaf to signals and without a timeout; so it runs on a daemon thread, for which nobody
waits longer than he likes: not even the interpreter when it ends. Addresses are then tried side by side, a quarter of
a second apart (RFC 8305, "Happy Eyeballs"): a broken IPv6 costs that much, not ten seconds.

:class:`Lookup` and :class:`Race` do no waiting; ``async_resolving`` waits for them in its own way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

STAGGER = 0.25
"""Seconds between attempts on different addresses (RFC 8305, section 5)."""

SLICE = 0.02
"""Longest wait in one go, in seconds, so that a close from another thread is noticed."""

Address = tuple[socket.AddressFamily, Any]
"""A family and what :meth:`socket.socket.connect` takes for it."""

Patience = Callable[[], float]
"""Says how many seconds may be waited now; raises when it is time to give up."""


def connect(host: str, port: int, patience: Patience) -> socket.socket:
    """Connect by TCP; the socket is non-blocking.

    Args:
        host: name or address.
        port: TCP port.
        patience: how long to go on.

    Raises:
        OSError: no address could be reached; the first failure is raised. :class:`socket.gaierror` is one.
    """
    with Race(resolve(host, port, patience)) as race:
        while True:
            wait = race.start_due(time.monotonic())
            if winner := race.winner(min(wait, patience(), SLICE)):
                return winner


def resolve(host: str, port: int, patience: Patience) -> list[Address]:
    """The addresses of a host.

    Raises:
        socket.gaierror: there are none.
    """
    if is_address(host):
        return look_up(host, port)
    with Lookup() as lookup:
        lookup.start(host, port)
        while not select.select([lookup.bell], [], [], min(patience(), SLICE))[0]:
            pass
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
    """Whether ``host`` is an IP address rather than a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False


class Lookup:
    """A lookup on a daemon thread. Leaving the context abandons it; nothing but the thread is left then.

    Attributes:
        bell: becomes readable when the result is there.
    """

    def __init__(self) -> None:
        self.bell, self._rope = socket.socketpair()
        self._lock = threading.Lock()
        self._outcome: list[Address] | OSError = OSError("not looked up yet")

    def start(self, host: str, port: int) -> None:
        """Begin. Starting a thread takes a while, so it is done inside the context, where a Ctrl-C leaves nothing."""
        threading.Thread(target=self._run, args=(host, port), name="unbroken-resolve", daemon=True).start()

    def result(self) -> list[Address]:
        """The addresses, once :attr:`bell` has rung.

        Raises:
            socket.gaierror: there are none.
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
    """Connects to several addresses, each a little after the one before; the first that stands wins.

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
        """Start what is due; return the seconds until there is more to start.

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

    def winner(self, seconds: float) -> socket.socket | None:
        """The socket that has connected within so many seconds, if one has."""
        with selectors.DefaultSelector() as selector:
            for sock in self.running:
                selector.register(sock, selectors.EVENT_WRITE)
            ready = selector.select(seconds)
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
    """IPv6 and IPv4 in turn, the resolver's first family first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    longest = max(len(first), len(other))
    return [family[i] for i in range(longest) for family in (first, other) if i < len(family)]
