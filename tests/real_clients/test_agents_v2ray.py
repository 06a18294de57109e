"""Real clients behind the relay, the relay behind a real v2ray: PING keeps the turn from its idle timer."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from real.v2ray import V2Ray, v2ray
from real_clients import running
from real_clients.clients import ANSWER, CLIENTS, Client
from real_clients.seen import relayed_to
from unbroken.lab import ScriptedAnswer, Upstream

pytestmark = [pytest.mark.agents, pytest.mark.real, pytest.mark.xdist_group("agents v2ray")]

CONN_IDLE = 1
"""Seconds; v2ray cuts a silent connection after one to two times as many."""

THINKING = ScriptedAnswer(text=ANSWER, think=2 * CONN_IDLE + 1.5)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2Ray]:
    with v2ray(tmp_path_factory.mktemp("v2ray"), conn_idle=CONN_IDLE) as started:
        yield started


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_it_is_answered_although_the_model_thinks_for_longer(
    client: Client, proxy: V2Ray, server_tls: ssl.SSLContext, ca_file: str
) -> None:
    running.demand(client)
    way = ("--proxy", proxy.http_url, "--ca-file", ca_file, "--ping", "0.5")
    with Upstream(answer=THINKING, ssl_context=server_tls) as upstream:
        seen = relayed_to(upstream, client, upstream.origin, *way)
        assert seen.outcome == "whole", (seen.ran, seen.log)
        assert seen.sent == client.sends
        assert not any(entry["lost"] for entry in seen.log)
        assert {request.http_version for request in upstream.requests} == {"2"}
        assert upstream.pings > CONN_IDLE
