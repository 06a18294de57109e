"""The warning about a configuration file whose keys other users can read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cli.programs import Cli, Program, environment
from cli.relays import running
from unbroken.cli.config import read_config, readers_warning, write_config
from unbroken.lab import Upstream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")

KEYS = [
    'provider = "openai"\napi_key = "sk-s3cret"',
    '[upstreams.work]\nbase_url = "http://h"\napi_key = "sk-s3cret"',
    'proxy = "http://me:s3cret@h:1"',
    'proxy = "me:s3cret@h:1"',
    '[relay]\nproxy = "socks5h://me:s3cret@h:1"',
    '[upstreams.work]\nbase_url = "http://h"\nproxy = "http://me:s3cret@h"',
    '[upstreams.work]\nbase_url = "http://h"\npaths = ["direct", "http://me:s3cret@h"]',
    'proxy = ["http://h:1", "http://me:s3cret@h:1"]',
]
NO_KEYS = [
    "",
    'provider = "openai"',
    'provider = "openai"\napi_key_env = "OPENAI_API_KEY"',
    'provider = "openai"\napi_key = ""',
    'proxy = "http://h:1"',
    'proxy = "http://me@h:1"',
    'proxy = ""',
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "con fig.toml"


def warning(path: Path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    return readers_warning(path, read_config(path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o444])
@pytest.mark.parametrize("text", KEYS)
def test_a_file_with_a_key_that_others_can_read(text: str, mode: int, path: Path) -> None:
    said = warning(path, text, mode)
    assert said == f"{path} holds a key or a password, and other users can read it; chmod 600 '{path}'"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o620, 0o601])
@pytest.mark.parametrize("text", KEYS)
def test_a_file_with_a_key_that_nobody_else_can_read(text: str, mode: int, path: Path) -> None:
    assert warning(path, text, mode) == ""


@pytest.mark.parametrize("text", NO_KEYS)
def test_a_file_without_a_key(text: str, path: Path) -> None:
    assert warning(path, text, 0o644) == ""


def test_not_on_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert warning(path, KEYS[0], 0o644) == ""


def test_a_pipe_in_its_place_is_nobodys(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.fchmod(writing, 0o644)
    os.write(writing, KEYS[0].encode())
    os.close(writing)
    path = Path(f"/dev/fd/{reading}")
    assert readers_warning(path, read_config(path)) == ""
    os.close(reading)


def test_what_init_writes_needs_none(path: Path) -> None:
    write_config(path, {"provider": "openai", "api_key": "sk-s3cret"})
    assert readers_warning(path, read_config(path)) == ""


# On the command line


@pytest.fixture
def file(path: Path) -> Path:
    path.write_text('proxy = "http://me:s3cret@127.0.0.1:1"\nno_proxy = false\n[upstreams.x]\nbase_url = "http://h"')
    path.chmod(0o644)
    return path


def test_run_warns_once(file: Path, cli: Cli) -> None:
    with Upstream() as upstream:
        asks = ("run", "--base-url", upstream.url, "--no-proxy", "hi")
        ended = cli(*asks, UNBROKEN_CONFIG=str(file))
        quiet = cli(*asks, "--quiet", UNBROKEN_CONFIG=str(file))
        told = cli(*asks, UNBROKEN_CONFIG=str(file), UNBROKEN_QUIET="1")
    warned, footer = ended.err.splitlines()
    assert (ended.code, ended.out) == (0, "Hello from the lab.\n")
    assert warned == f"unbroken: {file} holds a key or a password, and other users can read it; chmod 600 '{file}'"
    assert footer.startswith("  · 10 tok")
    assert (quiet.code, quiet.err) == (told.code, told.err) == (0, "")


def test_exec_warns_before_the_program(file: Path, cli: Cli) -> None:
    ended = cli("exec", "--no-proxy", "--", "true", UNBROKEN_CONFIG=str(file))
    assert ended.code == 0
    assert [line.count("chmod 600") for line in ended.err.splitlines()] == [1, 0]
    assert cli("exec", "-q", "--no-proxy", "--", "true", UNBROKEN_CONFIG=str(file)).err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_relay_warns_after_its_first_lines(form: str, file: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, UNBROKEN_CONFIG=str(file))
    with running("--no-proxy", "--log-format", form, env=env) as relay:
        *_, last = relay.program.err.wait_for("chmod 600").splitlines()
        assert relay.ask("/_unbroken/health").status == 200
        assert relay.program.err.text.count("chmod 600") == 1
    if form == "json":
        assert json.loads(last).keys() == {"warning"}


def test_a_quiet_relay_does_not_warn(file: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, UNBROKEN_CONFIG=str(file))
    with Program("relay", "--port", "0", "-q", "--no-proxy", env=env) as program:
        program.err.wait_for("_unbroken/\n")
        program._process.terminate()
        assert "chmod" not in program.end().err


def test_help_and_a_usage_error_do_not_warn(file: Path, cli: Cli) -> None:
    assert cli("run", "--help", UNBROKEN_CONFIG=str(file)).err == ""
    assert "chmod" not in cli("run", "--nope", UNBROKEN_CONFIG=str(file)).err
