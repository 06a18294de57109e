"""One outage of each kind in the gate: what is demanded of the table, and that the network is really cut."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from intermediaries.network import SERVER, How, Network, impossible, inside, network
from intermediaries.outages import Cell, measure
from intermediaries.running import make_trust
from unbroken.core.policy import Policy

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("outages")]

SHORT, LONG = 3.0, 10.0


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if why := impossible():
        pytest.skip(why)


@pytest.mark.parametrize("how", ["dropped", "link down"])
def test_nothing_passes_while_the_network_is_cut(how: How) -> None:
    with network() as net:
        assert _connects(net)
        net.cut(how)
        assert not _connects(net)
        net.mend(how)
        assert _connects(net)


def _connects(net: Network) -> bool:
    with inside(net.server):
        server = socket.create_server((SERVER, 0))
    with server, inside(net.client), socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((SERVER, server.getsockname()[1])) == 0


@pytest.mark.parametrize(
    "cell",
    [
        Cell("dropped", LONG, "direct", "HTTP/2", "before headers", "during"),
        Cell("dropped", SHORT, "proxy", "HTTP/1.1", "after headers", "after"),
        Cell("link down", SHORT, "direct", "HTTP/2", "after three tokens", "after"),
    ],
    ids=lambda cell: cell.title,
)
def test_an_outage_costs_no_answer_and_no_request(cell: Cell, tmp_path: Path) -> None:
    outcome = measure(cell, make_trust(tmp_path, SERVER), tmp_path / "home")
    assert outcome.complaints() == []
    assert outcome.back is not None
    assert {who: (seen.outcome, seen.requests) for who, seen in outcome.seen.items()} == {
        "plain": ("whole", 1),
        "run": ("whole", 1),
        "transport": ("whole", 1),
    }


def test_an_unanswered_ping_costs_no_answer_and_no_request(tmp_path: Path) -> None:
    """PINGs that are frequent, and soon taken for unanswered: what 20 s of the usual policy are in a long outage."""
    cell = Cell("dropped", LONG, "direct", "HTTP/2", "after headers", "during")
    policy = Policy(ping_interval=1.0, ping_timeout=1.0)
    outcome = measure(cell, make_trust(tmp_path, SERVER), tmp_path / "home", policy)
    assert outcome.complaints() == []
    assert outcome.seen["transport"].requests == outcome.seen["plain"].requests == 1
