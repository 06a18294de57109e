"""What TCP knows of a path; what it says of a real outage is in ``real/test_outages``."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from unbroken.wire import tcp
from unbroken.wire.tcp import tcp_state
from waiting import poll

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")


@linux
def test_an_acknowledged_byte_is_not_outstanding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")
        state = poll(lambda: (found := tcp_state(client)) and not found.outstanding and found)
        assert (state.retransmissions, state.acknowledged < 5) == (0, True)
        later = poll(lambda: (found := tcp_state(client)) and found.acknowledged >= 0.1 and found)
        assert not later.outstanding


@linux
def test_a_syn_that_nobody_answers_is() -> None:
    from wire.servers import black_hole

    with black_hole() as port, socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        sent_at = time.monotonic()
        state = tcp_state(client)
        assert state
        assert state.outstanding
        assert poll(lambda: (found := tcp_state(client)) and found.retransmissions > 0)
        assert time.monotonic() - sent_at > 0.5


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "_OPTION", None)
    with socket.socket() as sock:
        assert tcp_state(sock) is None


@linux
def test_a_socket_that_is_closed_or_no_tcp() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert tcp_state(left) is None
    assert tcp_state(left) is None
