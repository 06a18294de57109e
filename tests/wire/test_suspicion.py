"""A path that does not answer, on real sockets: what is reported of it, and the second connection beside it."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

import ctrl_c
from ports import free_port
from timing import Control
from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.suspicion import Recovered, SecondFailed, SecondStands, Suspected
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from waiting import poll, wait_until_asleep
from wire.sides import Pending, Side, Talk, chat, failure_of, limits

WATCHFUL = limits(ping=0.1, ping_timeout=0.3)


def probing(**changes: Any) -> Limits:
    """Limits under which a second connection is tried at once."""
    return msgspec.structs.replace(WATCHFUL, probe=time.monotonic(), **changes)


class Outage:
    """An upstream that thinks, over HTTP/2, behind a path that can be frozen.

    Attributes:
        upstream: the server.
        path: the path to it.
        talk: the exchange.
    """

    def __init__(self, upstream: Upstream, path: CuttingProxy, talk: Talk) -> None:
        self.upstream = upstream
        self.path = path
        self.talk = talk

    def until_suspected(self, *, coming: bool = True) -> None:
        """Send the request, and let the path fall silent."""
        pending = self.talk.start_sending(WATCHFUL)
        assert self.upstream.wait_for(lambda: self.upstream.requests, timeout=5)
        self.path.freeze(coming=coming)
        assert isinstance(pending.result(), Suspected)

    def until_the_second_stands(self) -> None:
        self.until_suspected(coming=False)
        assert self.talk.read(probing()) == SecondStands()

    def rest(self) -> bytes:
        """The head, and the whole body."""
        head = self.talk.read(WATCHFUL)
        assert head.status == 200
        return self.talk.read_all(WATCHFUL)


@pytest.fixture
def outage(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Callable[..., Any]:
    @contextmanager
    def stage(*, think: float = 60.0, **options: Any) -> Iterator[Outage]:
        answer = ScriptedAnswer(think=think, think_at="before_headers")
        with (
            Upstream(answer=answer, ssl_context=server_tls) as upstream,
            CuttingProxy(target=("127.0.0.1", upstream.port)) as path,
            side.wire(verify=client_tls) as exchange,
        ):
            yield Outage(upstream, path, exchange(chat(f"https://127.0.0.1:{path.port}/v1")))
            path.thaw()

    return stage


def test_the_path_that_answers_again_has_lost_nothing(outage: Any) -> None:
    with outage(think=0.8) as scene:
        scene.until_suspected()
        scene.path.thaw()
        assert scene.talk.read(WATCHFUL) == Recovered()
        assert scene.rest() == scene.upstream.requests[0].sent
        assert len(scene.upstream.requests) == 1


def test_after_the_headers_it_is_the_same(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with (
        Upstream(faults=[Fault("no_ping_ack", "after_role")], ssl_context=server_tls) as upstream,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        talk.send(WATCHFUL)
        while isinstance(came := talk.read(WATCHFUL), bytes):
            assert came
        assert came == Suspected(pytest.approx(0.3, abs=0.2))
        assert failure_of(talk.read, msgspec.structs.replace(WATCHFUL, idle=0.5)) == (
            Failure.IDLE_TIMEOUT,
            "nothing for 0.5 s",
        )


def test_a_second_connection_stands_and_is_used_once_the_first_is_given_up(outage: Any, side: Side) -> None:
    with outage() as scene:
        scene.until_the_second_stands()
        assert (scene.path.connections, len(scene.upstream.requests)) == (2, 1)
        given_up = msgspec.structs.replace(WATCHFUL, revive=time.monotonic() + 0.2)
        failure, detail = failure_of(scene.talk.read, given_up)
        assert failure is Failure.DEAD_PATH
        assert "a second connection stands" in detail


def test_the_request_is_sent_on_the_second_connection(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    fault = Fault("no_ping_ack", "before_headers")
    with Upstream(faults=[fault], ssl_context=server_tls) as upstream, side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(upstream.url))
        assert isinstance(talk.send(WATCHFUL), Suspected)
        assert talk.read(probing()) == SecondStands()
        assert upstream.connections == 2
        assert failure_of(talk.read, msgspec.structs.replace(WATCHFUL, revive=time.monotonic()))[0] is Failure.DEAD_PATH
        assert upstream.wait_for(lambda: upstream.open_connections == 1, timeout=5)
        another = exchange(chat(upstream.url))
        another.send()
        assert another.read_all() == upstream.requests[1].sent
        assert upstream.connections == 2


def test_if_the_first_answers_the_second_is_an_idle_connection(outage: Any, side: Side) -> None:
    with outage(think=0.8) as scene:
        scene.until_the_second_stands()
        scene.path.thaw()
        assert scene.talk.read(WATCHFUL) == Recovered()
        assert scene.rest() == scene.upstream.requests[0].sent
        assert (scene.upstream.connections, scene.upstream.open_connections) == (2, 2)


def test_while_the_network_is_away_no_second_one_stands(outage: Any) -> None:
    with outage(think=1.5) as scene:
        scene.until_suspected()
        came = scene.talk.read(probing(connect=0.3))
        assert came == SecondFailed(Failure.CONNECT_TIMEOUT, came.detail)
        scene.path.thaw()
        assert scene.talk.read(WATCHFUL) == Recovered()
        assert scene.rest() == scene.upstream.requests[0].sent


def test_a_second_one_is_tried_at_its_time_and_the_first_is_heard_meanwhile(outage: Any) -> None:
    with outage(think=0.8) as scene:
        scene.until_suspected()
        later = msgspec.structs.replace(WATCHFUL, probe=time.monotonic() + 60)
        pending = scene.talk.start_reading(later)
        scene.path.thaw()
        assert pending.result() == Recovered()
        assert scene.path.connections == 1
        assert scene.rest() == scene.upstream.requests[0].sent


def test_a_consent_of_a_proxy_is_not_enough(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Over CONNECT the proxy says 200, and the server nothing."""
    fault = Fault("no_ping_ack", "before_headers")
    faults = [fault, Fault("stall", "handshake")]
    with (
        Upstream(faults=faults, ssl_context=server_tls) as upstream,
        CuttingProxy() as proxy,
        side.wire(verify=client_tls, proxy=proxy.url) as exchange,
    ):
        talk = exchange(chat(upstream.url))
        assert talk.send(WATCHFUL) == Suspected(pytest.approx(0.3, abs=0.2))
        came = talk.read(probing(connect=0.5))
        assert came == SecondFailed(Failure.CONNECT_TIMEOUT, came.detail)
        assert upstream.connections == 2


def test_it_is_tried_over_another_path_if_asked_to(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    answer = ScriptedAnswer(think=60, think_at="before_headers")
    with (
        Upstream(answer=answer, ssl_context=server_tls) as upstream,
        CuttingProxy() as first,
        CuttingProxy() as second,
        side.wire(verify=client_tls, proxy=[first.url, second.url]) as exchange,
    ):
        scene = Outage(upstream, first, exchange(chat(upstream.url)))
        scene.until_suspected()
        assert scene.talk.read(probing(probe_path=1)) == SecondStands()
        assert (first.connections, second.connections) == (1, 1)
        first.thaw()


def test_connect_sends_nothing_and_send_uses_it(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    for context, http2 in ((None, False), (server_tls, False), (server_tls, True)):
        with (
            Upstream(ssl_context=context, http2=http2) as upstream,
            side.wire(verify=client_tls) as exchange,
        ):
            talk = exchange(chat(upstream.url))
            talk.connect()
            assert upstream.wait_for(lambda: upstream.connections == 1, timeout=5)
            assert (upstream.pings, len(upstream.requests)) == (int(http2), 0)
            assert talk.send().status == 200
            assert talk.read_all() == upstream.requests[0].sent
            assert upstream.connections == 1


def test_connect_fails_as_sending_does(side: Side) -> None:
    with side.wire() as exchange:
        assert failure_of(exchange(chat(f"http://127.0.0.1:{free_port()}")).connect)[0] is Failure.CONNECTION_REFUSED


# A second connection ends with its exchange, in every phase

SECOND = {"connecting": True, "standing": False}
"""Whether connections that come get no answer either."""


def start_with_a_second(scene: Outage, *, connecting: bool) -> Pending:
    """An exchange that waits, and whose second connection is in that phase."""
    if connecting:
        scene.until_suspected()
        pending = scene.talk.start_reading(probing())
        assert scene.path.wait_for(lambda: scene.path.connections == 2, timeout=5)
        return pending
    scene.until_the_second_stands()
    return scene.talk.start_reading(WATCHFUL)


def wait_until_all_have_left(scene: Outage) -> float:
    scene.path.thaw()
    assert scene.path.wait_for(lambda: scene.path.open_connections == 0, timeout=5)
    return time.monotonic()


@pytest.mark.timing
@pytest.mark.parametrize("connecting", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_it_is_closed_with_its_exchange(outage: Any, connecting: bool, how: str, promptly: Control) -> None:
    with outage() as scene:
        pending = start_with_a_second(scene, connecting=connecting)
        ended_at = time.monotonic()
        pending.cancel() if how == "cancelled" else scene.talk.close()
        promptly(ended_at, pending.wait_until_ended())
        promptly(ended_at, wait_until_all_have_left(scene))


@pytest.mark.timing
@pytest.mark.parametrize("side", ["blocking"], indirect=True)
@pytest.mark.parametrize("connecting", SECOND.values(), ids=SECOND)
def test_it_is_closed_by_ctrl_c(outage: Any, connecting: bool, promptly: Control) -> None:
    with outage() as scene:
        scene.until_suspected(coming=connecting)
        limits = probing()
        if not connecting:
            assert scene.talk.read(limits) == SecondStands()

        def is_waiting() -> bool:
            came = scene.path.wait_for(lambda: scene.path.connections == 2, timeout=5)
            wait_until_asleep(os.getpid())
            return came

        pressed_at = ctrl_c.interrupted(lambda: scene.talk.read(limits), is_waiting)
        promptly(pressed_at, time.monotonic())
        promptly(pressed_at, wait_until_all_have_left(scene))


@pytest.mark.parametrize("connecting", SECOND.values(), ids=SECOND)
def test_it_leaves_nothing_on_a_loop(outage: Any, side: Side, connecting: bool) -> None:
    tasks = side.tasks()
    with outage() as scene:
        pending = start_with_a_second(scene, connecting=connecting)
        pending.cancel()
        pending.wait_until_ended()
        assert poll(lambda: side.tasks() == tasks)
        wait_until_all_have_left(scene)
