"""Name resolution and connecting that a Ctrl-C and a deadline can interrupt, for blocking code.

``getaddrinfo`` blocks inside C, deaf to signals and without a timeout; so it runs on a thread of its own. Addresses
are then tried side by side, a quarter of a second apart (RFC 8305, "Happy Eyeballs"): a broken IPv6 costs that much,
not ten seconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

STAGGER = 0.25
"""Seconds between attempts on different addresses (RFC 8305, section 5)."""

Address = tuple[socket.AddressFamily, Any]
"""A family and what :meth:`socket.socket.connect` takes for it."""


def connect(host: str, port: int, check: Callable[[], float]) -> socket.socket:
    """Connect by TCP.

    Args:
        host: name or address.
        port: TCP port.
        check: raises when it is time to give up, else returns the seconds that may be waited now.

    Raises:
        OSError: no address could be reached; the first failure is raised. :class:`socket.gaierror` is one.
    """
    race = _Race(_interleaved(resolve(host, port, check)))
    winner: socket.socket | None = None
    try:
        winner = race.run(check)
        winner.setblocking(True)
        return winner
    finally:
        race.close(winner)


def resolve(host: str, port: int, check: Callable[[], float]) -> list[Address]:
    """The addresses of a host.

    Raises:
        socket.gaierror: there are none.
    """
    results: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put([(family, address) for family, _, _, _, address in found])
        except OSError as exc:
            results.put(exc)
        except UnicodeError:  # a label that is empty or too long for the DNS
            results.put(socket.gaierror(socket.EAI_NONAME, "not a host name"))

    if _is_address(host):
        look_up()
    else:
        threading.Thread(target=look_up, name="unbroken-resolve", daemon=True).start()
    while True:
        try:
            result = results.get(timeout=min(check(), 1.0))
        except queue.Empty:
            continue
        if isinstance(result, OSError):
            raise result
        return result


class _Race:
    """Connects to several addresses, each a little after the one before; the first that stands wins."""

    def __init__(self, addresses: list[Address]) -> None:
        self._waiting = deque(addresses)
        self._next_start = 0.0
        self._sockets: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._failure = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    def run(self, check: Callable[[], float]) -> socket.socket:
        while True:
            patience = check()
            now = time.monotonic()
            if self._waiting and now >= self._next_start:
                self._start(*self._waiting.popleft())
                self._next_start = now + STAGGER
            if self._waiting:
                patience = min(patience, max(self._next_start - now, 0.0))
            elif not self._selector.get_map():
                raise self._failure
            for key, _ in self._selector.select(patience):
                assert isinstance(key.fileobj, socket.socket)
                if self._stands(key.fileobj):
                    return key.fileobj

    def close(self, winner: socket.socket | None) -> None:
        self._selector.close()
        for sock in self._sockets:
            if sock is not winner:
                sock.close()

    def _start(self, family: socket.AddressFamily, sockaddr: Any) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as exc:  # a family that this machine does not have
            self._lose(exc)
            return
        self._sockets.append(sock)
        sock.setblocking(False)
        code = sock.connect_ex(sockaddr)
        if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._selector.register(sock, selectors.EVENT_WRITE)
        else:
            self._lose(OSError(code, os.strerror(code)))

    def _stands(self, sock: socket.socket) -> bool:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._selector.unregister(sock)
        if code:
            self._lose(OSError(code, os.strerror(code)))
        return not code

    def _lose(self, failure: OSError) -> None:
        if len(self._sockets) <= 1:
            self._failure = failure
        self._next_start = 0.0


def _interleaved(addresses: list[Address]) -> list[Address]:
    """IPv6 and IPv4 in turn, the resolver's first family first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    longest = max(len(first), len(other))
    return [family[i] for i in range(longest) for family in (first, other) if i < len(family)]


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False
