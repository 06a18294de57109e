"""An exchange ends within 100 ms of being cancelled, in every phase: a request left running is a bill."""

from __future__ import annotations

import json
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from timing import Control
from unbroken.core.http import Request
from unbroken.lab import CuttingProxy, Fault, Point, Upstream
from waiting import wait_until_asleep
from wire.servers import RawServer, black_hole, wait_until_connecting, wait_until_no_connecting
from wire.sides import Side, Talk, chat

pytestmark = pytest.mark.timing


@dataclass
class Scene:
    """An exchange that has got stuck in one phase.

    Attributes:
        request: what is asked.
        reached: waits until the exchange is in that phase, as the server sees it.
        gone: waits until the server has seen the client go; returns when that was.
        options: of the wire.
        reads: how much of the body is read before it gets stuck; ``None``: it gets stuck before the headers.
    """

    request: Request
    reached: Callable[[], object]
    gone: Callable[[], float]
    options: dict[str, Any] = field(default_factory=dict)
    reads: bytes | None = None


Staging = Callable[[ssl.SSLContext], AbstractContextManager[Scene]]


@contextmanager
def connecting(tls: ssl.SSLContext) -> Iterator[Scene]:
    with black_hole() as port:
        yield Scene(
            chat(f"http://127.0.0.1:{port}"),
            lambda: wait_until_connecting(port),
            lambda: wait_until_no_connecting(port),
        )


@contextmanager
def resolving(tls: ssl.SSLContext) -> Iterator[Scene]:
    asked, answered = threading.Event(), threading.Event()

    def getaddrinfo(*args: object, **options: object) -> list[Any]:
        asked.set()
        answered.wait()
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield Scene(chat("http://slow.test"), lambda: asked.wait(5), time.monotonic)
        answered.set()


def stuck_with_a_silent_server(url: str, **options: str) -> Staging:
    """Stuck with a server, or a proxy, that accepts and says nothing."""

    @contextmanager
    def stage(tls: ssl.SSLContext) -> Iterator[Scene]:
        with RawServer() as server:
            filled = {name: value.format(port=server.port) for name, value in options.items()}
            request = chat(url.format(port=server.port))
            yield Scene(request, server.wait_until_connected, server.wait_until_gone, filled)

    return stage


@contextmanager
def sending(tls: ssl.SSLContext) -> Iterator[Scene]:
    """The server has stopped reading: what is on its way must not be delivered after all."""

    receiving = threading.Event()

    def wait_for_a_reset(sock: socket.socket) -> None:
        sock.recv(1)
        receiving.set()
        poll = select.poll()
        poll.register(sock, select.POLLHUP | select.POLLERR)
        poll.poll(5000)

    with RawServer(wait_for_a_reset) as server:
        request = chat(server.url, body=bytes(20_000_000))
        yield Scene(request, lambda: receiving.wait(5), server.wait_until_gone)


def waiting(at: Point, *, tls: bool = False, http2: bool = True, proxied: bool = False) -> Staging:
    """Stuck with an upstream that has fallen silent."""

    @contextmanager
    def stage(server_tls: ssl.SSLContext) -> Iterator[Scene]:
        context = server_tls if tls else None
        fault = Fault("stall", at)
        with Upstream(faults=[fault], ssl_context=context, http2=http2) as upstream, CuttingProxy() as proxy:

            def gone() -> float:
                assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=5)
                return time.monotonic()

            yield Scene(
                chat(upstream.url),
                lambda: upstream.wait_for(lambda: upstream.requests, timeout=5),
                gone,
                {"proxy": proxy.url} if proxied else {},
                {"before_headers": None, "after_headers": b"", "after_token": b"Hello"}[at],
            )

    return stage


STAGINGS: dict[str, Staging] = {
    "connecting": connecting,
    "resolving": resolving,
    "TLS handshake": stuck_with_a_silent_server("https://127.0.0.1:{port}"),
    "CONNECT": stuck_with_a_silent_server("https://127.0.0.1:1", proxy="http://127.0.0.1:{port}"),
    "TLS to the proxy": stuck_with_a_silent_server("https://127.0.0.1:1", proxy="https://127.0.0.1:{port}"),
    "SOCKS5": stuck_with_a_silent_server("https://127.0.0.1:1", proxy="socks5h://127.0.0.1:{port}"),
    "sending": sending,
    "before headers": waiting("before_headers"),
    "before headers, TLS": waiting("before_headers", tls=True, http2=False),
    "before headers, HTTP/2": waiting("before_headers", tls=True),
    "before headers, HTTP/2 by CONNECT": waiting("before_headers", tls=True, proxied=True),
    "after headers": waiting("after_headers"),
    "after headers, HTTP/2": waiting("after_headers", tls=True),
    "in the body": waiting("after_token"),
    "in the body, TLS": waiting("after_token", tls=True, http2=False),
    "in the body, HTTP/2": waiting("after_token", tls=True),
    "in the body, HTTP/2 by CONNECT": waiting("after_token", tls=True, proxied=True),
}

stagings = pytest.mark.parametrize("stage", STAGINGS.values(), ids=STAGINGS.keys())


def get_stuck(talk: Talk, scene: Scene) -> Any:
    """Play the scene up to where it gets stuck; return what is stuck."""
    if scene.reads is None:
        pending = talk.start_sending()
    else:
        talk.send()
        talk.read_until(scene.reads) if scene.reads else None
        pending = talk.start_reading()
    assert scene.reached() is not False
    return pending


def sockets() -> int:
    return sum("socket:" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


@stagings
def test_cancelled(
    side: Side,
    stage: Staging,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    promptly: Control,
) -> None:
    tasks, fds, threads = side.tasks(), sockets(), set(threading.enumerate())
    with stage(server_tls) as scene, side.wire(verify=client_tls, **scene.options) as exchange:
        pending = get_stuck(exchange(scene.request), scene)
        cancelled_at = time.monotonic()
        pending.cancel()
        promptly(cancelled_at, pending.wait_until_ended())
        promptly(cancelled_at, scene.gone())
    assert side.tasks() <= tasks
    assert sockets() <= fds
    assert {thread for thread in threading.enumerate() if thread.name != "unbroken-resolve"} <= threads


@stagings
def test_closed_by_another_thread_or_task(
    side: Side, stage: Staging, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, promptly: Control
) -> None:
    with stage(server_tls) as scene, side.wire(verify=client_tls, **scene.options) as exchange:
        talk = exchange(scene.request)
        pending = get_stuck(talk, scene)
        closed_at = time.monotonic()
        talk.close()
        promptly(closed_at, pending.wait_until_ended())
        promptly(closed_at, scene.gone())
        with pytest.raises(Exception, match="cancelled by the caller"):
            pending.result()


class InterruptedProgram:
    """A program that blocks in the wire and is interrupted as by Ctrl-C. It lives on: what is closed, it has closed."""

    def __init__(self, ca: Path) -> None:
        program = Path(__file__).with_name("interrupted.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(ca)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, scene: Scene, authority: str) -> None:
        assert self._process.stdin
        order = {
            "url": scene.request.url,
            "size": len(scene.request.body),
            "proxy": scene.options.get("proxy", ""),
            "authority": authority,
            "reads": None if scene.reads is None else scene.reads.decode(),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert self._hear() == "stuck soon"

    def wait_until_stuck(self) -> None:
        wait_until_asleep(self._process.pid)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def what_is_left(self) -> str:
        return self._hear()

    def close(self) -> None:
        self._process.communicate("")
        assert self._process.returncode == 0

    def _hear(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InterruptedProgram]:
    program = InterruptedProgram(tmp_path_factory.mktemp("ca") / "authority.pem")
    yield program
    program.close()


@stagings
def test_interrupted_by_ctrl_c(
    stage: Staging,
    program: InterruptedProgram,
    authority: Any,
    server_tls: ssl.SSLContext,
    promptly: Control,
) -> None:
    with stage(server_tls) as scene:
        program.start(scene, authority.cert_pem.bytes().decode())
        if stage is not resolving:  # which the program plays by itself
            scene.reached()
        program.wait_until_stuck()
        interrupted_at = time.monotonic()
        program.interrupt()
        left = program.what_is_left()
        ended_at = time.monotonic()
        assert left == "KeyboardInterrupt, 0 sockets, threads: MainThread" + (
            ", unbroken-resolve" if stage is resolving else ""
        )
        promptly(interrupted_at, ended_at)
        promptly(interrupted_at, scene.gone())
