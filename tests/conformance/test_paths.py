"""Another path is taken where one fails, over every face; never one that was not named."""

from __future__ import annotations

from conformance.expectations import is_whole
from conformance.faces import Face
from conformance.fixtures import Setting
from ports import free_port
from unbroken.errors import Unreachable
from unbroken.lab import CuttingProxy, Fault
from wire.servers import RawServer

CUT = Fault("rst", "after_role")


def test_after_two_cuts_the_replay_goes_by_the_next_path_and_later_turns_begin_there(
    face: Face, setting: Setting
) -> None:
    upstream = setting.serve(CUT, CUT)
    with CuttingProxy() as first, CuttingProxy() as second:
        ask = setting.ask(upstream, proxy=[first.url, second.socks_url])
        outcome = face.run(ask)
        is_whole(outcome, upstream, requests=3)
        assert [event.path for event in outcome.told] == ["", second.socks_url]
        assert [attempt.path for attempt in outcome.report.attempts] == [first.url, first.url, second.socks_url]
        assert (len(first.tunnels), len(second.tunnels)) == (2, 1)
        again = face.run(ask)
        assert [attempt.path for attempt in again.report.attempts] == [second.socks_url]
        assert (len(first.tunnels), len(second.tunnels)) == (2, 2)


def test_a_proxy_that_is_not_there_is_left_at_once(face: Face, setting: Setting) -> None:
    upstream = setting.serve()
    missing = f"http://127.0.0.1:{free_port()}"
    outcome = face.run(setting.ask(upstream, proxy=[missing, "direct"]))
    assert outcome.error is None
    assert len(upstream.requests) == 1
    assert [(event.action, event.delay, event.path) for event in outcome.told] == [("retry", 0.0, "direct")]


def test_so_is_one_that_speaks_another_protocol(face: Face, setting: Setting) -> None:
    upstream = setting.serve()
    with RawServer(lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as server:
        outcome = face.run(setting.ask(upstream, proxy=[f"socks5h://127.0.0.1:{server.port}", "direct"]))
    assert outcome.error is None
    assert len(upstream.requests) == 1
    assert [event.failure.code for event in outcome.told] == ["proxy_protocol"]


def test_nothing_but_what_was_named_is_taken(face: Face, setting: Setting) -> None:
    upstream = setting.serve()
    missing = [f"http://127.0.0.1:{free_port()}", f"socks5h://127.0.0.1:{free_port()}"]
    for proxy in (missing, missing[0]):
        outcome = face.run(setting.ask(upstream, proxy=proxy))
        assert isinstance(outcome.error, Unreachable)
        named = missing if isinstance(proxy, list) else [proxy]
        assert all(f"cannot connect to the proxy at {url}: connection refused" in str(outcome.error) for url in named)
    assert not upstream.connections
