"""One silent connection: how its end is told, and how often a provider is pinged."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from unbroken.core.dialects import DEFAULT
from unbroken.core.http import Request
from unbroken.core.providers import Provider
from unbroken.doctor import far_end as ends
from unbroken.doctor.examination import Examination
from unbroken.doctor.far_end import FarEnd
from unbroken.doctor.idle import PROVIDER_PING, PROVIDER_PINGS, IdleTest
from unbroken.doctor.probe import Probe
from unbroken.doctor.reaching import do
from unbroken.doctor.silences import End, Keeping
from unbroken.doctor.target import Target
from unbroken.lab import Upstream
from unbroken.wire.requests import Destination

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
GOAWAY = b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 8
"""Frames of HTTP/2 (RFC 9113, sections 6.5 and 6.8)."""


class Alone:
    """The course of a test with one connection, which goes on until that ends."""

    def established(self, probe: Probe) -> bool:
        return True

    def begin(self, now: float) -> None:
        pass

    def over(self, now: float) -> bool:
        return False


def far(port: int, client_tls: ssl.SSLContext) -> FarEnd:
    return ends.provider(Destination.of(Request("GET", f"https://127.0.0.1:{port}/"), None), lambda: client_tls)


def ended(end: FarEnd, *settings: object, **options: object) -> Probe:
    probe = Probe(end, *settings, **{"until": 60.0, "limit": 30.0, **options})  # type: ignore[arg-type]
    do(probe.steps(Alone()))
    return probe


@contextmanager
def serving(server_tls: ssl.SSLContext, last: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    """Serve one connection over HTTP/2, which ends as the test says; yield the port."""
    server_tls.set_alpn_protocols(["h2"])
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with server_tls.wrap_socket(sock, server_side=True) as tls:
                tls.sendall(SETTINGS)
                tls.recv(65536)
                last(tls)
                over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def fin(tls: ssl.SSLSocket) -> None:
    socket.socket.shutdown(tls, socket.SHUT_WR)


def rst(tls: ssl.SSLSocket) -> None:
    tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tls.close()


def close_notify(tls: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        tls.settimeout(0.1)
        tls.unwrap()


def goaway(tls: ssl.SSLSocket) -> None:
    tls.sendall(GOAWAY)


def nothing(tls: ssl.SSLSocket) -> None:
    pass


@pytest.mark.parametrize(
    ("last", "end"),
    [(fin, End.FIN), (rst, End.RST), (close_notify, End.CLOSE_NOTIFY), (goaway, End.GOAWAY)],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
def test_each_end_is_told_from_the_others(
    last: Callable[[ssl.SSLSocket], None], end: End, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with serving(server_tls, last) as port:
        assert ended(far(port, client_tls)).result.end is end


def test_what_carries_nothing_any_more_is_told(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.doctor.probe.ANSWER", 0.5)
    with serving(server_tls, nothing) as port:
        probe = ended(far(port, client_tls), until=0.2)
    assert probe.result.end is End.SILENCE
    assert probe.result.seconds >= 0.2


def test_what_lives_is_kept(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with Upstream(ssl_context=server_tls) as upstream:
        probe = ended(far(upstream.port, client_tls), until=0.2)
    assert (probe.result.end, upstream.pings) == (End.KEPT, 1)


def test_nobody_there_is_not_reached(client_tls: ssl.SSLContext) -> None:
    probe = ended(far(1, client_tls))
    assert (probe.result.end, probe.result.detail) == (End.UNREACHED, "connection refused")


def test_the_last_ping_that_is_allowed_ends_it(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with Upstream(ssl_context=server_tls) as upstream:
        probe = ended(far(upstream.port, client_tls), Keeping.PING, 0.05, most=3)
    assert (probe.result.end, upstream.pings) == (End.KEPT, 3)
    assert upstream.requests == []


@pytest.mark.parametrize(("configured", "every"), [(10.0, 10.0), (1.0, 10.0), (30.0, 30.0), (0.0, 10.0)])
def test_a_provider_is_pinged_seldom(
    configured: float, every: float, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    target = Target(provider=Provider("custom", "https://127.0.0.1:1/v1"), dialect=DEFAULT, ping=configured)
    examination = Examination(target)
    examination.path.http_version = "HTTP/2"
    settings = list(IdleTest(examination, None, 90.0)._settings(far(1, client_tls)))
    assert [how[1] for how in settings if how[0] is Keeping.PING] == [every]
    assert every >= PROVIDER_PING == 10
    assert PROVIDER_PINGS == 6
    assert not [how for how in settings if how[0] is Keeping.COMMENTS]
