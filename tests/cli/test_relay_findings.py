"""``unbroken doctor --from``: what a relay's turns have met, read from the relay."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.programs import Cli, environment
from cli.relays import Running, running
from journal.made import HOST, PROXY, entry
from ports import free_port
from unbroken.core.failures import Failure, Phase
from unbroken.journal.database import write
from unbroken.journal.place import NAME
from unbroken.lab import Upstream
from wire.servers import RawServer, saying

TOKEN = "t-4242"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "unbroken" / NAME


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Running]:
    """A relay whose user's journal is the fixture ``journal``."""
    env = environment(tmp_path, XDG_STATE_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))
    with running("--upstream", "lab=http://127.0.0.1:9/v1", env=env) as relay:
        yield relay


def test_a_relay_that_has_lost_nothing(relay: Running, cli: Cli) -> None:
    ended = cli("doctor", "--from", relay.origin)
    assert (ended.code, ended.out, ended.err) == (0, f"the relay at {relay.origin}\n\n✓ nothing is wrong\n", "")
    told = json.loads(cli("doctor", "--from", relay.origin, "--json").out)
    assert told == {"findings": [], "idle_limit": None, "path": None}


def test_what_its_turns_have_met(relay: Running, cli: Cli, journal: Path) -> None:
    now = time.time()
    write(journal, [entry(now - i, face="relay") for i in range(4)], [], now)
    ended = cli("doctor", "--from", relay.origin)
    assert ended.code == 4
    assert f"  idle limit   60 s, to {HOST} through {PROXY}\n" in ended.out
    assert f"✗ 4 attempts over HTTP/1.1 through {PROXY} to {HOST} were cut after about 60 s of silence" in ended.out
    assert "\n  next: raise that limit (v2ray: policy.levels.0.connIdle)" in ended.out
    told = json.loads(cli("doctor", "--from", relay.origin, "--json").out)
    assert told["idle_limit"] == 60
    assert [finding.keys() for finding in told["findings"]] == [{"code", "text", "next"}]
    assert told == relay.ask("/_unbroken/findings").json


def test_a_note_is_no_fault(relay: Running, cli: Cli, journal: Path) -> None:
    now = time.time()
    write(journal, [entry(now, Failure.RESET, Phase.OUTPUT, face="relay")] * 3, [], now)
    ended = cli("doctor", "--from", relay.origin)
    assert ended.code == 0
    assert "\n· 3 attempts" in ended.out
    assert ended.out.endswith("✓ nothing is wrong\n")


@pytest.mark.parametrize("path", ["/", "/_unbroken/", "/_unbroken/findings", "/v1", "/_unbroken/?key=x"])
def test_any_url_that_leads_to_it_will_do(path: str, relay: Running, cli: Cli) -> None:
    assert cli("doctor", "--from", f"{relay.origin}{path}").code == 0


def test_a_proxy_of_the_environment_is_not_asked_for_a_relay_on_this_machine(relay: Running, cli: Cli) -> None:
    assert cli("doctor", "--from", relay.origin, HTTP_PROXY="http://127.0.0.1:1").code == 0


# Tokens


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Running]:
    with running(env=environment(tmp_path, UNBROKEN_RELAY_TOKEN=TOKEN)) as relay:
        yield relay


def test_the_token_is_shown_to_it_and_to_nobody_else(guarded: Running, cli: Cli) -> None:
    ended = cli("doctor", "--from", guarded.origin, UNBROKEN_RELAY_TOKEN=TOKEN)
    assert ended.code == 0
    assert TOKEN not in ended.out + ended.err
    assert cli("doctor", "--from", guarded.origin, "--token-env", "MINE", MINE=TOKEN).code == 0


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "wants its token, and there is none in UNBROKEN_RELAY_TOKEN"),
        ({"UNBROKEN_RELAY_TOKEN": "wrong-4242"}, "does not take the token of UNBROKEN_RELAY_TOKEN"),
    ],
)
def test_without_the_token_it_says_what_to_set(
    variables: dict[str, str], told: str, guarded: Running, cli: Cli
) -> None:
    ended = cli("doctor", "--from", guarded.origin, **variables)
    assert ended.code == 3
    assert f"✗ the relay at {guarded.origin} {told}\n  next: set UNBROKEN_RELAY_TOKEN to the token" in ended.out
    assert "wrong-4242" not in ended.out + ended.err


# What is no relay


def test_a_relay_that_is_not_there(cli: Cli) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    ended = cli("doctor", "--from", origin, "--json")
    assert ended.code == 5
    (finding,) = json.loads(ended.out)["findings"]
    assert finding["code"] == "relay_unreachable"
    assert finding["text"] == f"the relay at {origin} is not reached: connection refused"
    assert finding["next"] == "is the server running, and the URL right? unbroken relay starts one"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"[" * 9_000_000,
    ],
    ids=["page", "other JSON", "404", "redirect", "endless"],
)
def test_a_server_that_is_no_relay(answer: bytes, cli: Cli) -> None:
    with RawServer(saying(answer)) as server:
        ended = cli("doctor", "--from", f"http://127.0.0.1:{server.port}", UNBROKEN_RELAY_TOKEN=TOKEN)
    assert ended.code == 5
    assert "is no relay that tells findings: HTTP " in ended.out
    assert "next: give the URL that unbroken relay says at its start" in ended.out


def test_what_a_relay_says_is_harmless_on_a_terminal(cli: Cli) -> None:
    finding = b'{"findings": [{"code": "x", "text": "\\u001b[2J\\u202e", "next": "\\u001b]0;"}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(finding)
    with RawServer(saying(head + finding)) as server:
        ended = cli("doctor", "--from", f"http://127.0.0.1:{server.port}")
    assert ended.code == 4
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out


def test_a_token_follows_no_redirect(cli: Cli) -> None:
    with Upstream() as elsewhere:
        to = f"location: {elsewhere.url}/_unbroken/findings"
        with RawServer(saying(f"HTTP/1.1 307 T\r\n{to}\r\ncontent-length: 0\r\n\r\n".encode())) as server:
            ended = cli("doctor", "--from", f"http://127.0.0.1:{server.port}", UNBROKEN_RELAY_TOKEN=TOKEN)
        assert (ended.code, len(elsewhere.requests)) == (5, 0)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--from", "localhost:8765"], "'localhost:8765' is not an http:// or https:// URL"),
        (["--from", "http://localhost:1", "--token-env", "my-token"], "takes the name of an environment variable"),
    ],
)
def test_mistakes_are_told(args: list[str], told: str, cli: Cli) -> None:
    ended = cli("doctor", *args)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_a_server_that_says_nothing_is_given_up(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.doctor.relay_findings.ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = cli("doctor", "--from", f"http://127.0.0.1:{silent.getsockname()[1]}", "--connect", "1")
    assert ended.code == 5
    assert "is not reached" in ended.out
