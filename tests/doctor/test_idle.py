"""The idle test behind proxies of the lab, as its user runs it: what is cut, how, and that it can be ended early."""

from __future__ import annotations

import json
import signal
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from cli.programs import Program, environment
from cli.terminals import Terminal
from intermediaries.doctor import Diagnosis, doctor
from timing import Control
from unbroken.lab import CuttingProxy, Upstream
from unbroken.lab.echo import EchoServer
from waiting import poll

TIMER, LONGEST = 4, 12
"""Seconds."""

PATIENCE = 60.0


@pytest.fixture(scope="module")
def upstream(authority: trustme.CA) -> Iterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Upstream(ssl_context=context) as server:
        yield server


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def found(
    upstream: Upstream, server_tls: ssl.SSLContext, ca_file: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Diagnosis]:
    """What the doctor says in each situation. They are examined at once: each takes as long as its timer."""
    home = tmp_path_factory.mktemp("homes")
    with ExitStack() as stack:
        proxies = {
            "rst": CuttingProxy(idle=TIMER, how="rst"),
            "fin": CuttingProxy(idle=TIMER, how="fin"),
            "forgets": CuttingProxy(idle=600, black_hole_after=TIMER),
            "healthy": CuttingProxy(idle=600),
        }
        for proxy in proxies.values():
            stack.enter_context(proxy)
        old = stack.enter_context(Upstream(ssl_context=server_tls, http2=False))
        plain = stack.enter_context(Upstream())
        echo = stack.enter_context(EchoServer())
        situations = {
            "nothing": (upstream.url, ["--no-proxy"]),
            "local": (plain.url, ["--no-proxy"]),
            "rst": (upstream.url, ["--proxy", proxies["rst"].url]),
            "fin": (upstream.url, ["--proxy", proxies["fin"].socks_url]),
            "forgets": (upstream.url, ["--proxy", proxies["forgets"].url]),
            "healthy": (upstream.url, ["--proxy", proxies["healthy"].url]),
            "forwarded": (plain.url, ["--proxy", proxies["rst"].url]),
            "socks": (plain.url, ["--proxy", proxies["rst"].socks_url]),
            "old": (old.url, ["--proxy", proxies["rst"].url]),
            "echo": (upstream.url, ["--proxy", proxies["fin"].url, "--echo", echo.url]),
            "no echo": (upstream.url, ["--no-proxy", "--echo", "http://127.0.0.1:1"]),
        }
        pool = stack.enter_context(ThreadPoolExecutor(len(situations)))
        common = ["--ca-file", ca_file, "--max", str(LONGEST)]
        running = {
            name: pool.submit(doctor, home / name, "--base-url", url, *options, *common)
            for name, (url, options) in situations.items()
        }
        return {name: future.result() for name, future in running.items()}


@pytest.mark.slow
@pytest.mark.parametrize("situation", ["nothing", "local", "healthy"])
def test_nothing_is_wrong_where_nothing_is(situation: str, found: dict[str, Diagnosis]) -> None:
    told = found[situation]
    assert (told.code, told.findings, told.idle_limit) == (0, [], None)


@pytest.mark.slow
@pytest.mark.parametrize("situation", ["rst", "fin", "forwarded", "echo"])
def test_the_limit_and_the_proxy_are_told(situation: str, found: dict[str, Diagnosis]) -> None:
    told = found[situation]
    assert (told.code, told.codes) == (4, ["path_cuts_idle"])
    assert told.idle_limit is not None
    assert 3.5 <= told.idle_limit <= 10
    assert told.sentences.startswith("the local proxy at ")
    assert told.path["proxy"] in told.sentences
    assert ("by RST" if situation in ("rst", "forwarded") else "by FIN") in told.sentences
    assert "it tests only the hop to the proxy" in told.sentences


@pytest.mark.slow
@pytest.mark.parametrize("situation", ["rst", "fin", "echo"])
def test_ping_keeps_what_is_tunnelled(situation: str, found: dict[str, Diagnosis]) -> None:
    assert "HTTP/2 PING every 1 s keeps them" in found[situation].sentences
    assert "--ping " in found[situation].sentences


@pytest.mark.slow
@pytest.mark.parametrize("situation", ["forwarded", "socks", "old"])
def test_comments_keep_what_speaks_no_http2(situation: str, found: dict[str, Diagnosis]) -> None:
    told = found[situation].sentences
    assert "SSE comments from the server keep them; without HTTP/2 no PING can" in told
    assert "--sse-ping-interval" in told
    assert "--ping " not in told


@pytest.mark.slow
def test_what_is_forgotten_without_a_word_is_seen(found: dict[str, Diagnosis]) -> None:
    told = found["forgets"]
    assert told.codes == ["path_cuts_idle"]
    assert told.idle_limit is not None
    assert 3.5 <= told.idle_limit <= 10
    assert "forgets idle connections within" in told.sentences
    assert "nothing that was tried keeps them, so it limits their whole time" in told.sentences


@pytest.mark.slow
def test_a_far_end_that_is_not_there_is_told(found: dict[str, Diagnosis]) -> None:
    idle = found["no echo"].path["idle"]
    (why,) = idle["skipped"]
    assert why.startswith("the echo at 127.0.0.1:1 is not reached, so the next far end is taken: connection refused")
    assert [trial["kind"] for trial in idle["trials"]] == ["provider"]
    assert any("nothing is known to stand" in why for why in found["local"].path["idle"]["skipped"])


@pytest.mark.slow
def test_nothing_is_requested_in_the_test(upstream: Upstream, found: dict[str, Diagnosis]) -> None:
    assert found
    assert {request.target for request in upstream.requests} == {"/v1/models"}


def test_ctrl_c_shows_what_is_known_and_the_progress_is_on_the_terminal(
    upstream: Upstream, ca_file: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    args = ("doctor", "--base-url", upstream.url, "--ca-file", ca_file, "--max", "300")
    with Terminal(*args, env=environment(tmp_path), redirected={1: out}) as terminal:
        terminal.seen.wait_for(" s of 300 s at most", PATIENCE)
        terminal.type("\x03")
        code, _ = terminal.end()
    assert code == 130
    text = out.read_text()
    assert text.endswith("interrupted: this is what was known by then\n")
    assert "nothing: open, after" in text


@pytest.mark.timing
def test_a_signal_ends_it_at_once(upstream: Upstream, ca_file: str, tmp_path: Path, promptly: Control) -> None:
    with CuttingProxy(idle=600) as proxy:
        args = ("doctor", "--base-url", upstream.url, "--ca-file", ca_file, "--max", "300", "--proxy", proxy.url)
        with Program(*args, env=environment(tmp_path)) as program:
            assert proxy.wait_for(lambda: len(proxy.tunnels) >= 20, PATIENCE)  # of the examination, and of the test
            sent = time.monotonic()
            program.send(signal.SIGINT)
            program.err.wait_for_end(PATIENCE)
            promptly(sent, within=1.0)
            assert program.end().code == 130


def test_json_is_whole_after_a_signal_and_stderr_is_silent(upstream: Upstream, ca_file: str, tmp_path: Path) -> None:
    args = ("doctor", "--base-url", upstream.url, "--ca-file", ca_file, "--max", "300", "--json")
    before = upstream.connections
    with Program(*args, env=environment(tmp_path)) as program:
        poll(lambda: upstream.connections >= before + 5, PATIENCE)  # of the examination, and of the test
        program.send(signal.SIGTERM)
        program.err.wait_for_end(PATIENCE)
        ended = program.end()
    assert (ended.code, ended.err) == (143, "")
    assert set(json.loads(ended.out)) == {"findings", "idle_limit", "path"}
