from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from unbroken.wire.sockets import Waits, close, readable, tune, wait_for, wake


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    peer.settimeout(5)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, peer:
        yield client, peer


def test_a_reset_without_a_fin_before_it(pair: tuple[socket.socket, socket.socket]) -> None:
    """A proxy that sees the FIN first takes it for the end of the request only."""
    client, peer = pair
    close(client, abort=True)
    with pytest.raises(ConnectionResetError):
        peer.recv(10)


def test_a_polite_close(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    close(client)
    assert peer.recv(10) == b""


def test_a_socket_may_be_closed_twice_and_unconnected() -> None:
    sock = socket.socket()
    for _ in range(2):
        close(sock, abort=True)
        close(sock)


def test_a_thread_that_waits_for_bytes_can_be_woken(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    woken = threading.Event()
    thread = threading.Thread(target=lambda: (wait_for(Waits([client], [], 5)), woken.set()), daemon=True)
    thread.start()
    wake(client)
    assert woken.wait(1)
    assert not select.select([peer], [], [], 0)[0]


def test_a_wait_ends_with_bytes_with_room_or_with_its_time(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    wait_for(Waits([client], [], 0.01))
    wait_for(Waits([client], [client], 5))
    peer.sendall(b"x")
    wait_for(Waits([client], [], 5))
    assert readable(client)


def test_readable(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    assert not readable(client)
    peer.sendall(b"x")
    select.select([client], [], [], 1)
    assert readable(client)
    client.close()
    assert readable(client)


@pytest.mark.parametrize(
    ("interval", "timeout", "first", "seconds", "probes", "user_timeout"),
    [
        (10, 20, 10, 10, 2, 30_000),
        (0.2, 1, 1, 1, 1, 1200),
        (60, 30, 60, 60, 1, 90_000),
        (1, 600, 1, 5, 120, 601_000),  # 127 probes, the most that there are, a second apart would end after 127 s
    ],
)
def test_tune(interval: float, timeout: float, first: int, seconds: int, probes: int, user_timeout: int) -> None:
    with socket.socket() as sock:
        tune(sock, interval, timeout)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == first
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == seconds
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == probes
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == user_timeout
