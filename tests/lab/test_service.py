from __future__ import annotations

import socket
import threading

import pytest

from lab.clients import RawClient, Stopwatch
from ports import free_port
from timing import Control
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from unbroken.lab.service import Service


class Broken(Service):
    async def _serve(self, sock: socket.socket) -> None:
        raise ZeroDivisionError


@pytest.mark.timing
def test_close_is_prompt_and_leaves_nothing_behind(promptly: Control) -> None:
    threads = set(threading.enumerate())
    upstream = Upstream(answer=ScriptedAnswer(think=60), port=free_port()).start()
    proxy = CuttingProxy(target=("127.0.0.1", upstream.port)).start()
    with RawClient(proxy.port) as streaming, RawClient(upstream.port):
        streaming.post()
        assert upstream.wait_for(lambda: upstream.requests and upstream.requests[0].head_sent, 10)
        watch = Stopwatch()
        upstream.close()
        proxy.close()
        promptly(watch.started, within=0.5)
        streaming.read_to_end()
    assert set(threading.enumerate()) <= threads
    assert upstream.open_connections == proxy.open_connections == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", upstream.port))


def test_closing_again_is_harmless_and_starting_again_is_not_possible() -> None:
    upstream = Upstream()
    upstream.close()
    with upstream, pytest.raises(RuntimeError, match="once"):
        upstream.start()
    upstream.close()


def test_a_port_that_is_taken_is_told_at_once() -> None:
    with Upstream() as upstream, pytest.raises(OSError, match="in use"):
        Upstream(port=upstream.port).start()


def test_a_fault_of_the_lab_itself_is_not_hidden() -> None:
    service = Broken("127.0.0.1", 0).start()
    with RawClient(service.port) as client:
        assert client.read_to_end()[0] == b""
    with pytest.raises(ZeroDivisionError):
        service.close()


def test_wait_for_tells_whether_it_came_true() -> None:
    with Upstream(faults=[Fault("stall", "connect")]) as upstream:
        watch = Stopwatch()
        assert not upstream.wait_for(lambda: upstream.connections, 0.1)
        assert watch.seconds >= 0.1
        with RawClient(upstream.port):
            assert upstream.wait_for(lambda: upstream.open_connections == 1, 10)
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 10)
        assert upstream.connections == 1


def test_binds_ipv6() -> None:
    try:
        upstream = Upstream(host="::1").start()
    except OSError:
        pytest.skip("no IPv6 here")
    with RawClient(upstream.port, host="::1") as client:
        client.request("GET", "/v1/models")
        assert client.read_response()[0].status_code == 200
    assert upstream.origin == f"http://[::1]:{upstream.port}"
    upstream.close()
