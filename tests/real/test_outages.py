"""Turns during real outages: packets that are dropped between two network namespaces, without a word to anybody."""

from __future__ import annotations

import dataclasses
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trustme

from intermediaries.network import SERVER, Network, impossible, inside, network
from real.parts import missing
from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.dialects import recognise
from unbroken.core.http import Request
from unbroken.core.policy import Policy
from unbroken.drivers.synchronous import Driver
from unbroken.lab import Fault, Upstream
from unbroken.lab.fault import Point
from unbroken.wire.http import HttpWire

pytestmark = pytest.mark.slow

POLICY = Policy(ping_interval=0.3, ping_timeout=1.0, connect_timeout=1.5, backoff_initial=0.2, backoff_max=0.5)


@pytest.fixture
def link() -> Iterator[Network]:
    if why := impossible():
        missing(why)
    with network() as made:
        yield made


@dataclasses.dataclass
class Seen:
    """What came of a turn, and what was told meanwhile."""

    body: bytes = b""
    told: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    began: threading.Event = dataclasses.field(default_factory=threading.Event)


class World:
    """An upstream beyond the link, over TLS.

    Args:
        link: the link.
        http2: whether the upstream offers HTTP/2.
        fault: what it does with the first request.
    """

    def __init__(self, link: Network, *, http2: bool, fault: Fault) -> None:
        authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(SERVER).configure_cert(server)
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self.link = link
        self.upstream = Upstream(faults=[fault], ssl_context=server, http2=http2, host=SERVER)

    def ask(self, seen: Seen, policy: Policy) -> None:
        """Run a turn from the client's namespace, on this thread."""
        fields = ((b"content-type", b"application/json"),)
        body = json.dumps({"model": "lab", "messages": [], "stream": True}).encode()
        request = Request("POST", f"{self.upstream.url}/chat/completions", fields, body)
        call = recognise(request)
        assert call

        def on_path(notice: PathNotice) -> None:
            seen.told.append(notice.text)

        def on_retry(event: RetryEvent) -> None:
            seen.failures.append(event.failure.code)

        with inside(self.link.client):
            wire = HttpWire(proxy="", verify=self.trust)
            with Driver(wire, request, call, policy, on_retry=on_retry, on_path=on_path) as driver:
                driver.open()
                for chunk in driver:
                    seen.body += chunk
                    seen.began.set()
            wire.close()


@contextmanager
def serving(world: World) -> Iterator[None]:
    with inside(world.link.server):
        world.upstream.start()
    with closing(world.upstream):
        yield


def outlive(world: World, seconds: float, policy: Policy, *, after_output: bool = False) -> Seen:
    """Run a turn, and cut the link for so long once its request was read, or once its output began."""
    seen = Seen()
    asking = threading.Thread(target=world.ask, args=(seen, policy), daemon=True)
    asking.start()
    assert world.upstream.wait_for(lambda: world.upstream.requests, timeout=10)
    if after_output:
        assert seen.began.wait(10)
    world.link.cut("dropped")
    time.sleep(seconds)  # the outage itself
    world.link.mend("dropped")
    asking.join(60)
    assert not asking.is_alive()
    return seen


PLACES: dict[str, Point] = {"before the headers": "before_headers", "in the prelude": "after_role"}


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("at", PLACES.values(), ids=PLACES)
def test_an_outage_before_output_costs_no_second_request(link: Network, http2: bool, at: Point) -> None:
    world = World(link, http2=http2, fault=Fault("pause", at, seconds=2.0))
    with serving(world):
        seen = outlive(world, 4.0, POLICY)
        assert seen.body == world.upstream.requests[0].sent
        assert (len(world.upstream.requests), seen.failures) == (1, [])
    assert "trying a second connection" in seen.told[0]
    assert "waiting for the network" in seen.told[1]
    assert "answers again" in seen.told[-1]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_an_outage_after_output_is_waited_for(link: Network, http2: bool) -> None:
    world = World(link, http2=http2, fault=Fault("pause", "after_token", seconds=2.0))
    with serving(world):
        seen = outlive(world, 4.0, POLICY, after_output=True)
        assert seen.body == world.upstream.requests[0].sent
        assert (len(world.upstream.requests), seen.failures) == (1, [])
    assert "still waiting" in seen.told[0]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_connection_that_is_gone_for_good_is_replaced_as_soon_as_that_is_known(link: Network, http2: bool) -> None:
    """The client has another address: the network is there, and what is sent again on the old connection is lost."""
    world = World(link, http2=http2, fault=Fault("stall", "before_headers"))
    with serving(world):
        seen = Seen()
        asking = threading.Thread(target=world.ask, args=(seen, POLICY), daemon=True)
        asking.start()
        assert world.upstream.wait_for(lambda: world.upstream.requests, timeout=10)
        moved_at = time.monotonic()
        link.readdress()
        asking.join(60)
        assert time.monotonic() - moved_at < POLICY.revive
        assert seen.failures == ["dead_path"]
        assert seen.body == world.upstream.requests[1].sent
        assert len(world.upstream.requests) == 2
