"""The waiting parts run for both twins; see also ``test_cancelling`` and ``test_network_failures``."""

from __future__ import annotations

import errno
import functools
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ports import free_port
from timing import Control
from unbroken.wire import async_resolving, resolving
from unbroken.wire.resolving import Address, Race, interleaved
from unbroken.wire.sockets import run
from waiting import poll
from wire.servers import black_hole
from wire.sides import Side

V4 = socket.AF_INET
V6 = socket.AF_INET6


def remaining() -> float:
    return 1.0


def connect(side: Side, host: str, port: int, remaining: Callable[[], float] = remaining) -> socket.socket:
    if side.portal is None:
        return run(resolving.connect(host, port, remaining))
    return side.portal.call(functools.partial(async_resolving.connect, host, port, remaining))


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name stand for these addresses."""
    found = [(V6 if ":" in host else V4, socket.SOCK_STREAM, 6, "", (host, port)) for host, port in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_connects(side: Side, host: str) -> None:
    family = V6 if host == "::1" else V4
    with (
        socket.create_server((host if host != "localhost" else "127.0.0.1", 0), family=family) as server,
        connect(side, host, server.getsockname()[1]) as sock,
    ):
        assert sock.getpeername()[:2] == server.getsockname()[:2]
        assert not sock.getblocking()


@pytest.mark.timing
def test_an_address_that_refuses_costs_nothing(side: Side, monkeypatch: pytest.MonkeyPatch, promptly: Control) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resolving_to(monkeypatch, ("::1", free_port()), server.getsockname())
        started = time.monotonic()
        connect(side, "two.test", 0).close()
        promptly(started, within=resolving.STAGGER / 2)


@pytest.mark.timing
def test_an_address_that_is_silent_costs_a_quarter_of_a_second(
    side: Side, monkeypatch: pytest.MonkeyPatch, promptly: Control
) -> None:
    with black_hole() as silent, socket.create_server(("127.0.0.1", 0)) as server:
        resolving_to(monkeypatch, ("127.0.0.1", silent), server.getsockname())
        started = time.monotonic()
        with connect(side, "two.test", 0) as sock:
            assert sock.getpeername() == server.getsockname()
        assert time.monotonic() - started >= resolving.STAGGER
        promptly(started, within=2 * resolving.STAGGER)


def test_where_all_fail_the_first_failure_is_told(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, ("127.0.0.1", free_port()), ("255.255.255.255", 9))
    with pytest.raises(ConnectionRefusedError):
        connect(side, "two.test", 0)


def test_no_address_at_all(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch)
    with pytest.raises(OSError, match="No route to host"):
        connect(side, "none.test", 0)


@pytest.mark.parametrize("name", ["", "a" * 64 + ".test", "double..dot"])
def test_what_is_no_name_does_not_resolve(side: Side, name: str) -> None:
    with pytest.raises(socket.gaierror):
        connect(side, name, 1)


@pytest.mark.timing
def test_gives_up_when_remaining_does(side: Side, monkeypatch: pytest.MonkeyPatch, promptly: Control) -> None:
    deadline = time.monotonic() + 0.2

    def until_the_deadline() -> float:
        if time.monotonic() >= deadline:
            raise InterruptedError
        return deadline - time.monotonic()

    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [answered.wait()][:0])
    with pytest.raises(InterruptedError):
        connect(side, "slow.test", 1, until_the_deadline)
    promptly(deadline)
    answered.set()


def test_an_answer_that_nobody_waits_for_any_more_troubles_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [answered.wait()][:0])
    with resolving.Lookup() as lookup:
        lookup.start("slow.test", 1)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "unbroken-resolve")
    answered.set()
    thread.join(10)
    assert not thread.is_alive()


def test_families_take_turns() -> None:
    def found(*families: Any) -> list[Address]:
        return [(family, number) for number, family in enumerate(families)]

    assert interleaved(found(V6, V6, V6, V4)) == [(V6, 0), (V4, 3), (V6, 1), (V6, 2)]
    assert interleaved(found(V4, V4)) == [(V4, 0), (V4, 1)]
    assert interleaved([]) == []


def test_a_family_that_the_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def no_v6(family: int, *args: Any) -> socket.socket:
        if family == V6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        return real(family, *args)

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(socket, "socket", no_v6)
        with Race([(V6, ("::1", 1)), (V4, server.getsockname())]) as race:
            race.start_due(0.0)
            monkeypatch.undo()
            winner = poll(race.winner, 1)
            assert winner is not None
            winner.close()
