from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from unbroken.wire.sockets import Tcp, Tls, close, readable, tune, wake


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


class Patient:
    """Waits for so long each time, and counts what moves."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.written = 0

    def patience(self, *, reading: bool = True) -> float:
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]

    def wrote(self) -> None:
        self.written += 1


def test_tcp_carries_bytes_and_tells_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    tcp = Tcp(client, Patient(5))
    tcp.send(b"ping")
    assert peer.recv(10) == b"ping"
    peer.sendall(b"pong")
    assert tcp.receive(2) == b"po"
    assert tcp.receive(10) == b"ng"
    peer.close()
    assert tcp.receive(10) == b""


def test_tcp_asks_again_when_the_patience_of_one_wait_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    patient = Patient(0.01, 0.01, 5)
    tcp = Tcp(client, patient)
    with pytest.raises(TimeoutError):
        tcp.receive(10)
    peer.sendall(b"late")
    assert tcp.receive(10) == b"late"


def test_tcp_sends_all_and_tells_of_its_progress(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    data = bytes(range(256)) * 40_000
    patient = Patient(0.01)
    sender = threading.Thread(target=Tcp(client, patient).send, args=(data,))
    sender.start()
    received = bytearray()
    while len(received) < len(data):
        received += peer.recv(1_000_000)
    sender.join()
    assert received == data
    assert patient.written > 1


def test_tls_goes_on_after_a_timeout_in_the_middle_of_a_record(
    pair: tuple[socket.socket, socket.socket], server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    client, peer = pair
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_tls.wrap_bio(incoming, outgoing, server_side=True)
    patient = Patient(0.02)
    tls = Tls(Tcp(client, patient), client_tls, "127.0.0.1")
    while True:  # the handshake, both ends on one thread: it is asked again after every timeout
        try:
            tls.handshake()
            break
        except TimeoutError:
            incoming.write(peer.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                server.do_handshake()
            peer.sendall(outgoing.read())
    incoming.write(peer.recv(65536))
    server.do_handshake()
    server.write(b"in two halves")
    record = outgoing.read()
    peer.sendall(record[:-5])
    with pytest.raises(TimeoutError):
        tls.receive(100)
    peer.sendall(record[-5:])
    assert tls.receive(100) == b"in two halves"


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
    waits, woken = threading.Event(), threading.Event()

    class Telling(Patient):
        def patience(self, *, reading: bool = True) -> float:
            waits.set()
            return 5

    def receive() -> None:
        assert Tcp(client, Telling(5)).receive(10) == b""
        woken.set()

    threading.Thread(target=receive, daemon=True).start()
    assert waits.wait(1)
    wake(client)
    assert woken.wait(1)
    assert not select.select([peer], [], [], 0)[0]


def test_readable(pair: tuple[socket.socket, socket.socket]) -> None:
    client, peer = pair
    assert not readable(client)
    peer.sendall(b"x")
    select.select([client], [], [], 1)
    assert readable(client)
    client.close()
    assert readable(client)


@pytest.mark.parametrize(
    ("interval", "timeout", "seconds", "probes", "user_timeout"),
    [(10, 20, 10, 2, 30_000), (0.2, 1, 1, 1, 1200), (60, 30, 60, 1, 90_000)],
)
def test_tune(interval: float, timeout: float, seconds: int, probes: int, user_timeout: int) -> None:
    with socket.socket() as sock:
        tune(sock, interval, timeout)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == seconds
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == seconds
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == probes
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == user_timeout
