"""Real clients behind the relay, the relay behind a real v2ray: PING keeps the turn from its idle timer."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from real.fixtures import CONN_IDLE, THINK
from real.v2ray import V2Ray
from real_clients.clients import ANSWER, CLIENTS, Client
from real_clients.seen import relayed_to
from unbroken.lab import ScriptedAnswer, Upstream

pytestmark = [pytest.mark.slow, pytest.mark.agents]

THINKING = ScriptedAnswer(text=ANSWER, think=THINK)


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_it_is_answered_although_the_model_thinks_for_longer(
    client: Client, agent: Client, v2ray: V2Ray, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    way = ("--proxy", v2ray.http_url, "--ca-file", str(ca_file), "--ping", "0.5")
    with Upstream(answer=THINKING, ssl_context=server_tls) as upstream:
        seen = relayed_to(upstream, agent, upstream.origin, *way)
        assert seen.outcome == "whole", (seen.ran, seen.log)
        assert seen.sent == agent.sends
        assert not any(entry["lost"] for entry in seen.log)
        assert {request.http_version for request in upstream.requests} == {"2"}
        assert upstream.pings > CONN_IDLE
