"""The journal that ``run``, ``exec`` and ``relay`` write: what is in it, what is not, and that no turn fails for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.programs import Cli, Program, environment, run, shell
from cli.relays import running
from unbroken.journal import tally
from unbroken.journal.database import read
from unbroken.journal.entry import JournalContents
from unbroken.journal.place import NAME
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from waiting import poll

PATIENCE = 60.0
KEY, PROMPT, SYSTEM, ANSWER = "sk-KEY-4242", "PROMPT-4242", "SYSTEM-4242", "ANSWER-4242"
ASKING = str(Path(__file__).with_name("asking.py"))
CUT = Fault("rst", "after_role")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def env(tmp_path: Path, state: Path) -> dict[str, str]:
    return environment(tmp_path, XDG_STATE_HOME=str(state), LOCALAPPDATA=str(state), OPENAI_API_KEY=KEY)


def journal(env: Mapping[str, str]) -> JournalContents:
    return read(Path(env["XDG_STATE_HOME"]) / "unbroken" / NAME)


def written(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())


pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="the folder has no variable there")


def test_run_notes_a_lost_attempt_and_nothing_else(env: dict[str, str], state: Path) -> None:
    with Upstream(faults=[CUT], answer=ScriptedAnswer(text=ANSWER)) as upstream:
        args = ("--base-url", upstream.url, "--api-key-env", "OPENAI_API_KEY", "--system", SYSTEM, PROMPT)
        ended = run("run", *args, env=env)
        assert upstream.requests[0].header("authorization") == f"Bearer {KEY}"
    assert (ended.code, ended.out) == (0, f"{ANSWER}\n")
    (entry,) = journal(env).entries
    attempt = entry.attempt
    assert (entry.face, attempt.failure, attempt.phase, attempt.http_version) == ("run", "reset", "prelude", "HTTP/1.1")
    assert attempt.route.host == upstream.url.removeprefix("http://").removesuffix("/v1")
    assert [count.attempts for count in journal(env).answered] == [1]
    assert_private(state)


def assert_private(state: Path) -> None:
    """Nothing of the turn stands in any file: no key, no prompt, no answer, no URL."""
    data = written(state)
    assert b"reset" in data
    for secret in (KEY, PROMPT, SYSTEM, ANSWER, "completions", "/v1", "password", "http://user"):
        assert secret.encode() not in data, secret


def test_a_proxys_password_is_not_noted(env: dict[str, str], state: Path) -> None:
    with Upstream(faults=[CUT]) as upstream, CuttingProxy() as proxy:
        url = proxy.url.replace("://", "://user:password@")
        ended = run("run", "--base-url", upstream.url, "--proxy", f"{url}/v1?query", PROMPT, env=env)
    assert ended.code == 0, ended.err
    (entry,) = journal(env).entries
    assert (entry.attempt.route.proxy, entry.attempt.path_source) == (proxy.url, "--proxy")
    assert_private(state)


def test_a_turn_that_lost_nothing_is_counted(env: dict[str, str], state: Path) -> None:
    with Upstream(answer=ScriptedAnswer(text=ANSWER)) as upstream:
        args = ("--base-url", upstream.url, "--api-key-env", "OPENAI_API_KEY", PROMPT)
        assert [run("run", *args, env=env).code for _ in range(2)] == [0, 0]
    (file,) = (state / "unbroken").iterdir()
    assert file.name == tally.NAME
    first, second = file.read_text().splitlines()
    assert first.partition(",")[2] == second.partition(",")[2]  # the day may have changed
    said = json.loads(first)
    assert said.keys() == {"day", "host", "proxy", "http_version", "attempts"}
    assert (said["proxy"], said["http_version"], said["attempts"]) == ("", "HTTP/1.1", 1)
    assert f"http://{said['host']}/v1" == upstream.url


def test_a_turn_that_fails_is_noted_with_each_attempt(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")] * 2) as upstream:
        ended = run("run", "--replays", "1", "--format", "json", "--base-url", upstream.url, PROMPT, env=env)
    assert ended.code == 4
    assert len(journal(env).entries) == 2


@pytest.mark.parametrize("how", ["option", "variable", "file", "relay"])
def test_it_can_be_turned_off(how: str, cli: Cli, tmp_path: Path, state: Path) -> None:
    command = ("exec", "--", sys.executable, ASKING) if how == "relay" else ("run", PROMPT)
    table = "[relay]\n" if how == "relay" else ""
    (tmp_path / "config.toml").write_text(f"{table}journal = false\n" if how in ("file", "relay") else "")
    variables = {"XDG_STATE_HOME": str(state), "UNBROKEN_CONFIG": str(tmp_path / "config.toml")}
    if how == "option":
        command = (*command, "--no-journal")
    if how == "variable":
        variables["UNBROKEN_JOURNAL"] = "false"
    with Upstream(faults=[CUT]) as upstream:
        base = {"OPENAI_BASE_URL": upstream.url} if how == "relay" else {"UNBROKEN_BASE_URL": upstream.url}
        ended = cli(*command, **variables, **base)
        assert len(upstream.requests) == 2
    assert ended.code == 0, ended.err
    assert not state.exists()


def test_exec_notes_a_lost_attempt(env: dict[str, str], state: Path) -> None:
    with Upstream(faults=[CUT], answer=ScriptedAnswer(text=ANSWER)) as upstream:
        ended = run("exec", "--", sys.executable, ASKING, env=env | {"OPENAI_BASE_URL": upstream.url})
    assert (ended.code, ended.out) == (0, ANSWER)
    assert [entry.face for entry in journal(env).entries] == ["exec"]
    assert [count.attempts for count in journal(env).answered] == [1]
    assert_private(state)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_relay_notes_a_lost_attempt_while_it_runs(workers: str, env: dict[str, str], state: Path) -> None:
    with (
        Upstream(faults=[CUT], answer=ScriptedAnswer(text=ANSWER)) as upstream,
        running("--upstream", f"lab={upstream.url}", "--workers", workers, env=env) as relay,
    ):
        assert relay.chat("/lab/v1", authorization=f"Bearer {KEY}").text == ANSWER
        entries = poll(lambda: journal(env).entries, PATIENCE)
        assert [entry.face for entry in entries] == ["relay"]
        assert relay.chat("/lab/v1").text == ANSWER
        relay.program.send(signal.SIGTERM)
        relay.program.end()
    assert sum(count.attempts for count in journal(env).answered) == 2
    assert_private(state)


def test_what_was_lost_before_ctrl_c_is_noted(env: dict[str, str]) -> None:
    with (
        Upstream(faults=[CUT, Fault("stall", "after_role")]) as upstream,
        Program("run", "--base-url", upstream.url, PROMPT, env=env) as program,
    ):
        assert upstream.wait_for(lambda: len(upstream.requests) == 2, timeout=PATIENCE)
        program.wait_until_asleep()
        program.send(signal.SIGINT)
        ended = program.end()
    assert (ended.code, "Traceback" in ended.err) == (130, False)
    assert [entry.attempt.failure for entry in journal(env).entries] == ["reset"]


def test_ctrl_c_ends_the_wait_for_a_locked_journal(env: dict[str, str]) -> None:
    with Upstream(faults=[CUT, None, CUT]) as upstream:
        run("run", "--base-url", upstream.url, PROMPT, env=env)
        with (
            contextlib.closing(sqlite3.connect(Path(env["XDG_STATE_HOME"]) / "unbroken" / NAME)) as other,
            Program("run", "--base-url", upstream.url, PROMPT, env=env) as program,
        ):
            other.execute("BEGIN EXCLUSIVE")
            program.err.wait_for("attempt lost", PATIENCE)
            program.send(signal.SIGINT)
            ended = program.end()
    assert ended.code in (0, 130)
    assert (ended.out, "Traceback" in ended.err) == ("Hello from the lab.\n", False)


@pytest.mark.parametrize("broken", ["corrupt", "directory", "file_for_folder", "other_version", "no_home"])
@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_journal_that_cannot_be_written_fails_no_turn(
    broken: str, command: str, env: dict[str, str], state: Path
) -> None:
    path = state / "unbroken" / NAME
    match broken:
        case "corrupt":
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\0garbage" * 999)
        case "directory":
            path.mkdir(parents=True)
        case "file_for_folder":
            state.write_bytes(b"")
        case "other_version":
            path.parent.mkdir(parents=True)
            with contextlib.closing(sqlite3.connect(path)) as later:
                later.execute("PRAGMA user_version = 99")
        case "no_home":
            env["XDG_STATE_HOME"] = "/proc/nowhere"
    with Upstream(faults=[CUT]) as upstream:
        args = ("run", "--base-url", upstream.url, PROMPT) if command == "run" else ("exec", sys.executable, ASKING)
        ended = run(*args, env=env | {"OPENAI_BASE_URL": upstream.url})
    assert (ended.code, ended.out.strip()) == (0, "Hello from the lab.")
    told = ended.err.splitlines()
    assert len(told) == (2 if command == "run" else 1), told  # the retry and the footer; the summary


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_fails_no_turn(env: dict[str, str]) -> None:
    with Upstream(faults=[CUT]) as upstream:
        ended = shell(f"ulimit -f 0; unbroken run --base-url {upstream.url} {PROMPT}", env=env)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (0, "Hello from the lab.\n", 2)
    assert journal(env) == JournalContents()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_fails_no_turn(env: dict[str, str], state: Path) -> None:
    state.mkdir(mode=0o500)
    with Upstream(faults=[CUT]) as upstream:
        ended = run("run", "--base-url", upstream.url, PROMPT, env=env)
    assert (ended.code, len(ended.err.splitlines())) == (0, 2)
