"""Servers that do to a bare socket what the lab's scripted ones are too well-behaved for."""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from waiting import poll

Script = Callable[[socket.socket], None]
"""What is done to an accepted connection; it is closed after it."""

TIMEOUT = 30.0


def silence(sock: socket.socket) -> None:
    """Read whatever comes and say nothing, until the client leaves."""
    with suppress(OSError):
        while sock.recv(65536):
            pass


def saying(*pieces: bytes) -> Script:
    """Wait for a request's head, then send the pieces and close."""

    def script(sock: socket.socket) -> None:
        read_head(sock)
        for piece in pieces:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        silence(sock)

    return script


def read_head(sock: socket.socket) -> bytes:
    """What comes, up to the end of a request's head."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class RawServer:
    """Runs a script for each connection, each on a thread of its own.

    Attributes:
        connections: how many were accepted.
    """

    def __init__(self, script: Script = silence, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def wait_until_connected(self) -> None:
        self._wait(lambda: self.connections > 0)

    def wait_until_gone(self) -> float:
        """Wait until every client has left; return when that was seen."""
        self._wait(lambda: not self._open)
        return time.monotonic()

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open.values()):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # an SSLSocket's own ends TLS under a script
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _wait(self, predicate: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, TIMEOUT)

    def _run(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="RawServer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent before a reset, is sent
                with self._changed:
                    self.connections += 1
                    number = self.connections
                    self._open[number] = sock
                    self._changed.notify_all()
                self._run(self._serve, number, sock)

    def _serve(self, number: int, sock: socket.socket) -> None:
        try:
            if self._tls:
                sock = self._open[number] = self._tls.wrap_socket(sock, server_side=True)
            self._script(sock)
        except OSError:
            pass  # the client left
        finally:
            sock.close()
            with self._changed:
                del self._open[number]
                self._changed.notify_all()


def relaying_to(port: int) -> Script:
    """Pass bytes to a port of this machine and back; over TLS, this makes an https proxy of an http proxy."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def script(sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as target:
            back = threading.Thread(target=copy, args=(target, sock), daemon=True)
            back.start()
            copy(sock, target)
            back.join()

    return script


class Gate:
    """A script that passes bytes to a port of this machine, and back to a place; there it waits until it is opened.

    Args:
        port: where the bytes go.
        after: the place, as a pattern of what comes back: the first match, and what precedes it, do not wait.
    """

    def __init__(self, port: int, after: bytes = b"") -> None:
        self._port = port
        self._after = re.compile(after, re.DOTALL)
        self._opened = threading.Semaphore(0)

    def open(self) -> None:
        """Let one connection through."""
        self._opened.release()

    def __call__(self, sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as target:
            held, passing = b"", False
            while True:
                readable, _, _ = select.select([sock, target], [], [])
                if sock in readable:
                    if not (asked := sock.recv(65536)):
                        return
                    target.sendall(asked)
                if target in readable:
                    try:
                        said = target.recv(65536)
                    except ConnectionResetError:
                        reset(sock)
                        return
                    held += said
                    if not passing and (place := self._after.search(held)):
                        sock.sendall(held[: place.end()])
                        assert self._opened.acquire(timeout=2 * TIMEOUT)
                        held, passing = held[place.end() :], True
                    if passing:
                        sock.sendall(held)
                        held = b""
                    if not said:
                        return


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a server that drops every SYN, because its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        try:
            while True:
                filler = socket.socket()
                fillers.append(filler)
                filler.settimeout(0.2)
                filler.connect(("127.0.0.1", port))
        except TimeoutError:
            fillers.pop().close()
            yield port
        finally:
            for filler in fillers:
                filler.close()


def refuses(port: int) -> bool:
    """Whether nobody listens there any more; who accepts and closes at once still listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def wait_until_no_connecting(port: int) -> float:
    """Wait until no socket of this machine is connecting to ``port`` any more; return when that was seen."""
    poll(lambda: not _is_connecting(port))
    return time.monotonic()


def wait_until_connecting(port: int) -> None:
    """Wait until a socket of this machine is connecting to ``port``."""
    poll(lambda: _is_connecting(port))


def _is_connecting(port: int) -> bool:
    syn_sent, remote = "02", f":{port:04X}"
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, _, target, state, *_ = line.split()
        if state == syn_sent and target.endswith(remote):
            return True
    return False
