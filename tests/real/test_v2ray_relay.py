"""Clients that know nothing of all this, through the relay and a real v2ray that cuts what is silent for a second."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from cli.programs import environment
from real.fixtures import CONN_IDLE, THINK
from real.v2ray import V2Ray
from relay.records import series
from relay.serving import RelayProgram, poll
from unbroken.lab import Fault, ScriptedAnswer, Upstream

pytestmark = pytest.mark.slow

TEXT = "The recovery token is 7."
THINKING = ScriptedAnswer(text=TEXT, think=THINK)
ASKED = {"model": "lab", "stream": True, "messages": [{"role": "user", "content": "?"}]}

StartRelay = Callable[..., "Relay"]


class Relay:
    """``unbroken relay`` behind a v2ray, before one upstream.

    Attributes:
        origin: where it is reached.
    """

    def __init__(self, program: RelayProgram) -> None:
        self._program = program
        said = program.err.wait_for("\n")
        self.origin = re.search(r"listening on (http://\S+)", said)[1]  # type: ignore[index]

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 60.0) -> tuple[int, Any, bytes]:
        """Ask once, without a second try: status, headers and body."""
        with closing(http.client.HTTPConnection(self.origin.removeprefix("http://"), timeout=timeout)) as client:
            client.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
            response = client.getresponse()
            return response.status, response.headers, response.read()

    def entry(self) -> dict[str, Any]:
        """The access log's first entry, which is waited for."""

        def entries() -> list[dict[str, Any]]:
            lines = self._program.err.text.splitlines()[1:]
            return [json.loads(line) for line in lines if '"outcome"' in line]

        return poll(entries)[0]

    def metrics(self) -> dict[str, float]:
        return series(self.ask("GET", "/_unbroken/metrics")[2])


@pytest.fixture
def upstream(server_tls: ssl.SSLContext) -> Iterator[Upstream]:
    with Upstream(answer=THINKING, ssl_context=server_tls) as server:
        yield server


@pytest.fixture
def relay(authority: trustme.CA, tmp_path: Path) -> Iterator[StartRelay]:
    """Starts relays: ``relay(upstream, proxy_url, *options)``."""
    authority.cert_pem.write_to_path(ca_file := tmp_path / "ca.pem")
    with ExitStack() as stack:

        def start(upstream: Upstream, proxy_url: str, *options: str) -> Relay:
            way = ["--proxy", proxy_url, "--ca-file", str(ca_file), "--upstream", f"lab={upstream.url}"]
            args = ["relay", "--port", "0", "--log-format", "json", *way, *options]
            return Relay(stack.enter_context(RelayProgram(*args, env=environment(tmp_path))))

        yield start


@pytest.mark.parametrize("kind", ["http_url", "socks_url"])
def test_with_ping_the_first_attempt_answers(upstream: Upstream, v2ray: V2Ray, relay: StartRelay, kind: str) -> None:
    """A client, too, that waits no longer for a byte than v2ray does."""
    served = relay(upstream, getattr(v2ray, kind), "--ping", "0.5", "--heartbeat", "0.5")
    status, headers, body = served.ask("POST", "/lab/v1/chat/completions", ASKED, timeout=2 * CONN_IDLE)
    assert (status, headers["x-unbroken-turn"]) == (200, served.entry()["id"])
    assert body.replace(b": unbroken\n\n", b"") == upstream.requests[0].sent
    assert body.count(b": unbroken\n\n") == served.entry()["heartbeats"] >= 3
    assert (len(upstream.requests), upstream.requests[0].http_version) == (1, "2")
    assert upstream.pings > CONN_IDLE
    assert (served.entry()["outcome"], served.entry()["attempts"]) == ("answered", 1)


def test_the_openai_sdk_fails_without_the_relay_and_completes_through_it(
    upstream: Upstream, v2ray: V2Ray, relay: StartRelay, client_tls: ssl.SSLContext
) -> None:
    openai = pytest.importorskip("openai", reason="pip install openai")
    asked = {**ASKED, "messages": [{"role": "user", "content": "Reply with the recovery token"}]}

    direct = openai.DefaultHttpxClient(proxy=v2ray.http_url, verify=client_tls)
    with (
        openai.OpenAI(api_key="k", base_url=upstream.url, http_client=direct, max_retries=0) as client,
        pytest.raises(Exception, match=r"(?i)disconnected|closed|reset|connection|incomplete"),
    ):
        list(client.chat.completions.create(**asked))
    assert upstream.pings == 0

    served = relay(upstream, v2ray.http_url, "--ping", "0.5")
    with openai.OpenAI(api_key="k", base_url=f"{served.origin}/lab/v1", max_retries=0) as client:
        chunks = list(client.chat.completions.create(**asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert len(upstream.requests) == 2
    assert served.entry()["attempts"] == 1


def test_without_ping_it_is_cut_replayed_and_given_up_with_the_reason(
    upstream: Upstream, v2ray: V2Ray, relay: StartRelay
) -> None:
    served = relay(upstream, v2ray.http_url, "--ping", "0", "--replays", "2")
    status, headers, body = served.ask("POST", "/v1/chat/completions", ASKED)
    assert status == 502
    assert headers["x-should-retry"] == "false"
    assert headers["x-unbroken-replays"] == "2"
    error = json.loads(body)["error"]
    assert error["code"] == "stream_cut"
    assert "something on the way cuts idle connections after about" in error["message"]
    assert "turn PING on" in error["message"]
    assert (len(upstream.requests), upstream.pings) == (3, 0)
    entry = served.entry()
    assert (entry["status"], entry["outcome"], entry["attempts"], entry["replays"]) == (502, "lost", 3, 2)
    assert entry["lost"] == ["closed@prelude"] * 3
    assert entry["detail"] == error["message"]
    found = served.metrics()
    assert found["unbroken_turns_total{dialect=openai-chat,outcome=lost,upstream=lab}"] == 1
    assert found["unbroken_attempts_total{failure=closed,phase=prelude,upstream=lab}"] == 3
    assert found["unbroken_attempts_again_total{kind=replay}"] == 2
    silent = found["unbroken_silence_at_cut_seconds_sum{upstream=lab}"] / 3
    assert CONN_IDLE <= silent <= 2 * CONN_IDLE + 1
    assert found["unbroken_silence_at_cut_seconds_count{upstream=lab}"] == 3


def test_without_ping_a_cut_that_is_replayed_is_not_seen_by_the_client(
    v2ray: V2Ray, relay: StartRelay, server_tls: ssl.SSLContext
) -> None:
    """The model thinks too long once, as models do."""
    faults = [Fault("stall", "after_role")]
    with Upstream(faults=faults, answer=ScriptedAnswer(text=TEXT), ssl_context=server_tls) as upstream:
        served = relay(upstream, v2ray.http_url, "--ping", "0")
        status, headers, body = served.ask("POST", "/v1/chat/completions", ASKED)
        assert status == 200
        assert body == upstream.requests[1].sent
        assert (headers["x-unbroken-replays"], headers["x-unbroken-lost"]) == ("1", "closed@prelude")
        entry = served.entry()
        assert (entry["outcome"], entry["attempts"], entry["lost"]) == ("answered", 2, ["closed@prelude"])
        assert served.metrics()["unbroken_turns_saved_total{upstream=lab}"] == 1
