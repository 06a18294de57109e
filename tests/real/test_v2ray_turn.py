"""Whole turns through a real v2ray: the command line and the client, without PING and with it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unbroken
from real.fixtures import CONN_IDLE, THINK
from real.v2ray import V2Ray
from unbroken.lab import ScriptedAnswer, Upstream

pytestmark = pytest.mark.slow

THINKING = ScriptedAnswer(text="The recovery token is 7.", think=THINK)


@pytest.fixture
def upstream(server_tls: ssl.SSLContext) -> Iterator[Upstream]:
    with Upstream(answer=THINKING, ssl_context=server_tls) as server:
        yield server


def run(upstream: Upstream, proxy: str, ca_file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--base-url", upstream.url, "--proxy", proxy, "--ca-file", str(ca_file)]
    return subprocess.run(
        [sys.executable, "-m", "unbroken", "run", *where, *options, "Reply with the recovery token"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "UNBROKEN_CONFIG": os.devnull},
    )


@pytest.mark.parametrize("kind", ["http_url", "socks_url"])
def test_with_ping_the_first_attempt_answers(upstream: Upstream, v2ray: V2Ray, ca_file: Path, kind: str) -> None:
    ran = run(upstream, getattr(v2ray, kind), ca_file, "--ping", "0.5", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["text"] == "The recovery token is 7."
    assert [attempt["failure"] for attempt in answer["attempts"]] == [None]
    assert answer["attempts"][0]["http_version"] == "HTTP/2"
    assert len(upstream.requests) == 1
    assert upstream.pings > CONN_IDLE


def test_without_ping_it_fails_after_its_replays_and_says_why(upstream: Upstream, v2ray: V2Ray, ca_file: Path) -> None:
    ran = run(upstream, v2ray.http_url, ca_file, "--ping", "0", "--replays", "3")
    assert ran.returncode == 4
    assert ran.stdout == ""
    assert len(upstream.requests) == 4
    assert "attempt 4 of 4" in ran.stderr
    assert "something on the way cuts idle connections after about" in ran.stderr
    assert "turn PING on" in ran.stderr
    assert upstream.pings == 0


def test_the_client_answers_too(upstream: Upstream, v2ray: V2Ray, ca_file: Path) -> None:
    policy = unbroken.Policy(ping_interval=0.5)
    with unbroken.Client(base_url=upstream.url, proxy=v2ray.http_url, verify=ca_file, policy=policy) as client:
        turn = client.stream("Reply with the recovery token")
        with turn:
            assert turn.read().text == "The recovery token is 7."
    assert turn.report.lost == 0
