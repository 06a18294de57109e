"""SIGINT and SIGTERM end the program at once, in every phase, and the upstream's connection with it."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cli.programs import Program
from timing import Control
from unbroken.lab import Fault, Point, ScriptedAnswer, Upstream
from wire.servers import black_hole, wait_until_connecting

AT_ONCE = 1.0
"""Seconds; on an idle machine it takes about 30 ms."""

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])

End = Callable[[Program, signal.Signals, int], str]


@pytest.fixture
def end(promptly: Control) -> End:
    """Interrupts a program, which must end at once; returns its stderr."""

    def interrupt(program: Program, number: signal.Signals, code: int) -> str:
        program.wait_until_asleep()
        sent = time.monotonic()
        program.signal(number)
        promptly(sent, within=AT_ONCE)
        ended = program.end()
        assert ended.code == code
        assert "Traceback" not in ended.err
        return ended.err

    return interrupt


@pytest.mark.timing
def test_while_stdin_is_read(end: End, env: dict[str, str]) -> None:
    with Program("run", "--provider", "ollama", "--model", "m", env=env, stdin=subprocess.PIPE) as program:
        program.err.wait_for("reading stdin")
        end(program, signal.SIGINT, 130)


@pytest.mark.timing
@SIGNALS
def test_while_connecting(end: End, number: signal.Signals, code: int, env: dict[str, str]) -> None:
    with black_hole() as port, Program("run", "--base-url", f"http://127.0.0.1:{port}/v1", "hi", env=env) as program:
        wait_until_connecting(port)
        end(program, number, code)


@pytest.mark.timing
@SIGNALS
def test_in_the_tls_handshake(
    end: End, number: signal.Signals, code: int, server_tls: ssl.SSLContext, env: dict[str, str]
) -> None:
    with Upstream(faults=[Fault("stall", "handshake")], ssl_context=server_tls) as upstream:
        with Program("run", "--base-url", upstream.url, "hi", env=env) as program:
            assert upstream.wait_for(lambda: upstream.open_connections == 1, timeout=10)
            end(program, number, code)
        assert upstream.wait_for(lambda: upstream.open_connections == 0, timeout=10)


@contextmanager
def stalled(at: Point, env: dict[str, str], *args: str) -> Iterator[Program]:
    """A program in the middle of a turn; its request is gone from the upstream when it has left."""
    with Upstream(faults=[Fault("stall", at)], answer=ScriptedAnswer(text="TOKEN-42 ok")) as upstream:
        with Program("run", "--base-url", upstream.url, *args, "hi", env=env) as program:
            wanted = {"before_headers": b"", "after_role": b'"role"', "after_token": b"TOKEN-42"}[at]
            assert upstream.wait_for(lambda: upstream.requests and wanted in upstream.requests[0].sent, timeout=10)
            if at == "after_token":
                program.out.wait_for("TOKEN-42")
            yield program
            assert upstream.wait_for(lambda: upstream.requests[0].gone, timeout=10)
        assert len(upstream.requests) == 1


@pytest.mark.timing
@SIGNALS
@pytest.mark.parametrize("at", ["before_headers", "after_role", "after_token"])
def test_in_a_turn(end: End, at: Point, number: signal.Signals, code: int, env: dict[str, str]) -> None:
    with stalled(at, env) as program:
        assert end(program, number, code) == ""


@pytest.mark.timing
@SIGNALS
def test_during_a_wait(end: End, number: signal.Signals, code: int, env: dict[str, str]) -> None:
    busy = Fault("status", "before_headers", status=503, headers={"retry-after": "30"})
    with Upstream(faults=[busy]) as upstream, Program("run", "--base-url", upstream.url, "hi", env=env) as program:
        program.err.wait_for("retrying in 30.0 s")
        end(program, number, code)
        assert len(upstream.requests) == 1


@pytest.mark.timing
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_is_ended_by_an_error(end: End, form: str, env: dict[str, str]) -> None:
    with stalled("after_role", env, "--format", form) as program:
        end(program, signal.SIGINT, 130)
        said = json.loads(program.out.wait_for_end())
    error = said if form == "jsonl" else said["error"]
    assert (error["code"], error["retryable"]) == ("cancelled", True)
    assert error["phase"] in ("headers", "prelude")
    assert [attempt["failure"] for attempt in said["attempts"]] == ["cancelled"]


def test_a_second_signal_exits_without_a_word(env: dict[str, str]) -> None:
    with stalled("after_role", env) as program:
        program.send(signal.SIGINT)
        program.send(signal.SIGTERM)
        ended = program.end()
    assert ended.code in (130, 143)  # they may arrive together, in any order
    assert ended.err == ""


def test_an_ignored_signal_stays_ignored(env: dict[str, str]) -> None:
    """As under nohup, or in the background of a shell without job control."""
    with Upstream(faults=[Fault("pause", "before_headers", seconds=0.5)]) as upstream:
        shell = ["sh", "-c", 'trap "" INT; exec "$0" "$@"']
        with Program("run", "--base-url", upstream.url, "-q", "hi", env=env, prefix=shell) as program:
            assert upstream.wait_for(lambda: upstream.requests, timeout=10)
            program.send(signal.SIGINT)
            assert program.end().code == 0
