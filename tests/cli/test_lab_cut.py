"""``unbroken lab cut``: one line a request, and nothing of what is in it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Sequence

import pytest

import unbroken
from cli.programs import Cli, Program
from lab.clients import CHAT, STREAM, RawClient, text_of
from unbroken.lab import ScriptedAnswer, Upstream

WAIT = 30.0
SECRET = {"authorization": "Bearer sk-s3cret", "connection": "close"}


def port_of(program: Program) -> int:
    said = program.err.wait_for("/v1\n", WAIT)
    found = re.search(r"^listening on http://127\.0\.0\.1:(\d+)/v1$", said, re.MULTILINE)
    assert found
    return int(found[1])


def ask(port: int, path: str = CHAT) -> bytes:
    with RawClient(port) as client:
        client.socket.settimeout(WAIT)
        client.post(STREAM, path, SECRET)
        return client.read_to_end()[0]


def test_each_request_is_a_line_of_json(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        args = ["--to", upstream.url, "--fault", "fin@after_events:2", "--fault", "status=429@before_headers", "--json"]
        with Program("lab", "cut", *args, env=env) as program:
            port = port_of(program)
            for _ in range(3):
                ask(port, f"{CHAT}?key=s3cret")
            lines = program.out.wait_for('"request": 3', WAIT).splitlines()
            assert program.signal(signal.SIGINT) < WAIT
            assert program.end().code == 130
        told = [json.loads(line) for line in lines]
        sizes = [len(upstream.requests[1].sent)]
    assert [{key: value for key, value in line.items() if key != "seconds"} for line in told] == [
        {"request": 1, "method": "POST", "path": CHAT, "status": 200, "events": 2}
        | {"bytes": told[0]["bytes"], "fault": "fin@after_events:2", "end": "fault"},
        {"request": 2, "method": "POST", "path": CHAT, "status": 429, "events": 0}
        | {"bytes": told[1]["bytes"], "fault": "status=429@before_headers", "end": "fault"},
        {"request": 3, "method": "POST", "path": CHAT, "status": 200, "events": 9}
        | {"bytes": sizes[0], "fault": None, "end": "whole"},
    ]
    assert "s3cret" not in str(lines)


def test_each_request_is_a_line_for_a_person(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        args = ["--to", upstream.url, "--fault", "rst@after_token", "--times", "2", "--path", "/chat/"]
        with Program("lab", "cut", *args, env=env, stdout=subprocess.DEVNULL) as program:
            port = port_of(program)
            ask(port, "/v1/responses")
            for _ in range(2):
                ask(port)
            said = program.err.wait_for("request 3", WAIT)
    assert f"request 1: POST /v1/responses, 200, 13 events, {len(upstream.requests[0].sent)} bytes, whole\n" in said
    assert re.search(r"^request 2: POST /v1/chat/completions, 200, 2 events, \d+ bytes, rst@after_token$", said, re.M)
    assert "s3cret" not in said


def test_a_scenario_is_for_generation_calls(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        args = ["--to", upstream.url, "--scenario", "close-before-headers", "--json"]
        with Program("lab", "cut", *args, env=env) as program:
            port = port_of(program)
            with RawClient(port) as client:
                client.socket.settimeout(WAIT)
                client.request("GET", "/v1/models", headers=SECRET)
                assert client.read_response()[0].status_code == 200
            for _ in range(3):
                ask(port)
            lines = program.out.wait_for('"request": 4', WAIT).splitlines()
    close = "fin@before_headers"
    assert [json.loads(line)["fault"] for line in lines] == [None, close, close, None]


def test_ctrl_c_ends_it_while_a_response_flows(env: dict[str, str]) -> None:
    answer = ScriptedAnswer(think=600)
    with Upstream(answer=answer) as upstream, Program("lab", "cut", "--to", upstream.url, env=env) as program:
        with RawClient(port_of(program)) as client:
            client.post()
            assert upstream.wait_for(lambda: upstream.requests and upstream.requests[0].head_sent, WAIT)
            program.send(signal.SIGINT)
            program.err.wait_for_end(WAIT)
        ended = program.end()
        assert ended.code == 130
        assert "Traceback" not in ended.err
        assert upstream.wait_for(lambda: upstream.requests[0].gone, WAIT)


def test_a_turn_of_unbroken_survives_it(env: dict[str, str]) -> None:
    with (
        Upstream() as upstream,
        Program("lab", "cut", "--to", upstream.url, "--fault", "fin@after_role", env=env) as program,
        unbroken.Client(base_url=f"http://127.0.0.1:{port_of(program)}/v1", proxy="") as client,
        client.stream("Hello") as turn,
    ):
        assert turn.read().text == "Hello from the lab."
        assert turn.report.lost == 1


def test_it_says_that_the_upstream_cannot_be_reached(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        url = upstream.url
    with Program("lab", "cut", "--to", url, env=env) as program:
        assert text_of(ask(port_of(program))) == ""
        program.err.wait_for("upstream unreachable: ", WAIT)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing option '--to'"),
        (["--to", "nope"], "'nope' is not an http:// or https:// URL"),
        (["--to", "http://joe:s3cret@h/v1"], "has a user"),
        (["--to", "http://h", "--fault", "nope"], "'nope' is not a fault"),
        (["--to", "http://h", "--fault", "goaway@after_role"], "goaway needs HTTP/2"),
        (["--to", "http://h", "--fault", "rst@handshake"], "a fault at handshake needs TLS"),
        (["--to", "https://h", "--ca-file", "/nope"], "cannot use the CA file '/nope'"),
        (["--to", "http://h", "--proxy", "socks5://joe:s3cret@h"], "is not an http:// or https:// URL"),
        (["--to", "http://h", "--scenario", "nope"], "the scenarios are"),
        (["--to", "http://h", "--scenario", "nope.toml"], "cannot read nope.toml"),
        (["--to", "http://h", "--scenario", "http2-goaway"], "goaway needs HTTP/2"),
        (["--to", "http://h", "--scenario", "nothing", "--fault", "rst@connect"], "leave --fault out"),
        (["--to", "http://h", "--port", "65536"], "is not a port"),
        (["--to", "http://h", "--times", "-1"], "is not in the range"),
    ],
    ids=str,
)
def test_mistakes(args: Sequence[str], said: str, cli: Cli) -> None:
    ended = cli("lab", "cut", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err
    assert "s3cret" not in ended.err


def test_the_help_names_kinds_points_and_options(cli: Cli) -> None:
    out = cli("lab", "cut", "--help").out
    for words in (
        "--to URL",
        "--fault",
        "--times",
        "--scenario",
        "--path",
        "--ca-file",
        "--json",
        "after_events",
        "truncated_chunk",
    ):
        assert words in out
