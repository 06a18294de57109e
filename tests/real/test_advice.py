"""Idle timers of servers that are deployed: what is told of them, and that PING gets through those that it can."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

import unbroken
from ports import free_port
from real.test_servers import HAPROXY, NGINX, Front, running, write
from unbroken.core.actions import RetryEvent
from unbroken.core.report import Report
from unbroken.lab import ScriptedAnswer, Upstream

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real servers")]

POLICY = unbroken.Policy(backoff_initial=0.05, replays=2)

TUNNEL = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 3s
  timeout server 3s
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server lab 127.0.0.1:{upstream}
"""


@pytest.fixture(scope="module")
def pem(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@contextmanager
def haproxy(folder: Path, template: str, **values: object) -> Iterator[Front]:
    port = free_port()
    with running("haproxy", port, "-f", write(folder, template, port=port, **values)) as front:
        yield front


@contextmanager
def nginx(folder: Path, template: str, **values: object) -> Iterator[Front]:
    port = free_port()
    with running("nginx", port, "-p", str(folder), "-c", write(folder, template, port=port, **values)) as front:
        yield front


def ask(front: Front, client_tls: ssl.SSLContext, policy: unbroken.Policy = POLICY) -> tuple[Report, list[RetryEvent]]:
    """The report of a turn through a front, and what was told on the way."""
    told: list[RetryEvent] = []
    client = unbroken.Client(base_url=front.url, policy=policy, on_retry=told.append, verify=client_tls, proxy="")
    turn = client.stream("hi")
    with client, contextlib.suppress(unbroken.TurnError), turn:
        turn.read()
    return turn.report, told


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_a_gateway_timeout(server: str, pem: Path, tmp_path: Path, client_tls: ssl.SSLContext) -> None:
    with Upstream(answer=ScriptedAnswer(think=60, think_at="before_headers")) as upstream:
        if server == "nginx":
            template = NGINX.replace("proxy_buffering off;", "proxy_buffering off; proxy_read_timeout 2s;")
            front = nginx(tmp_path, template, pem=pem, upstream=upstream.port)
        else:
            front = haproxy(tmp_path, HAPROXY.replace("server 30s", "server 2s"), pem=pem, upstream=upstream.port)
        with front as started:
            report, _ = ask(started, client_tls)
    assert {attempt.http_version for attempt in report.attempts} == {"HTTP/2"}
    assert report.advice.startswith("a gateway answers HTTP 504 after about 2 s without a word from its server")


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_a_timer_that_ping_does_not_reach(server: str, pem: Path, tmp_path: Path, client_tls: ssl.SSLContext) -> None:
    """It is between the front and its server; nginx resets the stream, haproxy ends it as if it were whole."""
    with Upstream(answer=ScriptedAnswer(think=60, think_at="after_role")) as upstream:
        if server == "nginx":
            template = NGINX.replace("proxy_buffering off;", "proxy_buffering off; proxy_read_timeout 3s;")
            front = nginx(tmp_path, template, pem=pem, upstream=upstream.port)
        else:
            front = haproxy(tmp_path, HAPROXY.replace("server 30s", "server 3s"), pem=pem, upstream=upstream.port)
        with front as started:
            report, told = ask(started, client_tls)
    assert told[0].advice == ""
    assert {attempt.lowered_ping for attempt in report.attempts} == {None}
    assert "ends answers after about 3 s without a byte of them, which no PING can prevent" in report.advice


def test_a_timer_over_http1(pem: Path, tmp_path: Path, client_tls: ssl.SSLContext) -> None:
    template = HAPROXY.replace("server 30s", "server 2s").replace("alpn h2,http/1.1", "alpn http/1.1")
    with (
        Upstream(answer=ScriptedAnswer(think=60, think_at="after_role")) as upstream,
        haproxy(tmp_path, template, pem=pem, upstream=upstream.port) as front,
    ):
        report, _ = ask(front, client_tls)
    assert "about 2 s, and over HTTP/1.1 no PING can prevent it" in report.advice
    assert "proxy" not in report.advice


@pytest.mark.parametrize("ping", [10.0, 0.0])
def test_a_timer_that_ping_reaches(
    ping: float, server_tls: ssl.SSLContext, tmp_path: Path, client_tls: ssl.SSLContext
) -> None:
    """The usual settings get through at the second attempt; ``--ping 0`` is left as it is, and told what to set."""
    policy = dataclasses.replace(POLICY, ping_interval=ping)
    answer = ScriptedAnswer(think=5, think_at="before_headers")
    with (
        Upstream(answer=answer, ssl_context=server_tls) as upstream,
        haproxy(tmp_path, TUNNEL, upstream=upstream.port) as front,
    ):
        report, told = ask(front, client_tls, policy)
    assert upstream.pings == sum(attempt.route.pings_sent for attempt in report.attempts)
    if ping:
        assert [attempt.failure is None for attempt in report.attempts] == [False, True]
        assert [event.advice for event in told] == ["cut after 3 s: pinging every 1 s from now on"]
    else:
        assert upstream.pings == 0
        assert "about 3 s: turn PING on (--ping 1, Policy.ping_interval), which keeps them busy" in report.advice
