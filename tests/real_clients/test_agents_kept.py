"""Agents whose connection to the relay is cut in the middle of an answer: asking again, they collect the same turn."""

from __future__ import annotations

import pytest

from real_clients.clients import CLIENTS, Client
from real_clients.seen import cut_on_its_way

pytestmark = [pytest.mark.slow, pytest.mark.agents]

CUT_AFTER = {"Codex": 2000, "Codex, a provider of one's own": 2000, "Claude Code": 1000}
"""Bytes behind which the first words have come, and not all of them. Claude Code asks for a continuation, which is
another request, once it has the whole text."""


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.name in CUT_AFTER], ids=lambda c: c.name)
def test_its_own_retry_collects_the_turn(client: Client, agent: Client) -> None:
    seen = cut_on_its_way(agent, CUT_AFTER[client.name])
    assert seen.outcome == "whole", (seen.ran, seen.log)
    assert len(seen.turns) == 1
    asked = [entry for entry in seen.log if entry["method"] == "POST"]
    assert len(asked) == 2
    assert asked[0]["bytes_in"] == asked[1]["bytes_in"]
    assert "collected" in [entry["outcome"] for entry in asked]
