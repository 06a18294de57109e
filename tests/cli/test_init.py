"""``unbroken init``: flags, questions, the key, and a file that nobody else can read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cli.programs import Cli, run
from cli.terminals import Terminal


@pytest.fixture
def path(env: dict[str, str], tmp_path: Path) -> Path:
    env["UNBROKEN_CONFIG"] = str(tmp_path / "deep" / "config.toml")
    return tmp_path / "deep" / "config.toml"


def written(path: Path) -> dict[str, Any]:
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path], "it writes nowhere else"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_flags_are_written(path: Path, env: dict[str, str]) -> None:
    flags = ["--provider", "deepseek", "--model", 'odd "model" \\', "--proxy", "socks5h://me:pw@127.0.0.1:10808"]
    ended = run("init", *flags, env=env)
    assert (ended.code, ended.out, ended.err) == (0, "", f"wrote {path}\n")
    assert written(path) == {
        "provider": "deepseek",
        "model": 'odd "model" \\',
        "proxy": "socks5h://me:pw@127.0.0.1:10808",
    }


def test_a_file_that_is_there_is_replaced_only_by_force(path: Path, env: dict[str, str]) -> None:
    path.parent.mkdir()
    path.write_text("model = 'mine'")
    path.chmod(0o600)
    ended = run("init", "--provider", "deepseek", env=env)
    assert (ended.code, written(path)) == (2, {"model": "mine"})
    assert "is already there; edit it, or replace it with --force" in ended.err
    assert run("init", "--provider", "deepseek", "--force", env=env).code == 0
    assert written(path) == {"provider": "deepseek"}


def test_a_key_is_stored_from_stdin_when_told(path: Path, env: dict[str, str]) -> None:
    env["DEEPSEEK_API_KEY"] = "sk-environment"
    assert run("init", "--provider", "deepseek", env=env, stdin=b"sk-piped\n").code == 0
    assert written(path) == {"provider": "deepseek"}
    assert run("init", "--provider", "deepseek", "--force", "--store-key", env=env, stdin=b"sk-piped\n").code == 0
    assert written(path) == {"provider": "deepseek", "api_key": "sk-piped"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nobody to ask: give at least --provider or --base-url"),
        (["--provider", "nope"], "unknown provider 'nope'"),
        (["--base-url", "nope"], "'nope' is not an http:// or https:// URL"),
        (["--provider", "openai", "--proxy", "gopher://x"], "unknown scheme gopher://"),
        (["--provider", "openai", "--api-key-env", "sk-123"], "takes the name of an environment variable"),
        (["--provider", "openai", "--store-key"], "--store-key was given, but no key"),
        (["--model", "m", "--store-key"], "whose key is it?"),
    ],
)
def test_what_run_would_refuse_is_refused_now(flags: list[str], said: str, path: Path, cli: Cli) -> None:
    ended = cli("init", *flags, UNBROKEN_CONFIG=str(path))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "config.toml"
    ended = cli("init", "--provider", "deepseek", UNBROKEN_CONFIG=str(path))
    assert (ended.code, ended.err) == (2, f"unbroken: cannot write {path}: File exists\n")


def test_it_asks_on_a_terminal(path: Path, env: dict[str, str]) -> None:
    with Terminal("init", env=env) as terminal:
        terminal.seen.wait_for("[deepseek]: ")
        terminal.type("nope\n")
        terminal.seen.wait_for("unknown provider 'nope'")
        terminal.type("groq\n")
        terminal.seen.wait_for("Model [llama")
        terminal.type("\n")
        assert terminal.end()[0] == 0
    assert written(path) == {"provider": "groq", "model": "llama-3.3-70b-versatile"}


def test_it_asks_about_a_server_of_ones_own_and_for_its_key(path: Path, env: dict[str, str]) -> None:
    with Terminal("init", "--store-key", env=env) as terminal:
        terminal.seen.wait_for("[deepseek]: ")
        terminal.type("http://127.0.0.1:8080/v1\n")
        terminal.seen.wait_for("Model [default]: ")
        terminal.type("m\n")
        terminal.seen.wait_for("(empty: none) []: ")
        terminal.type("sk-oops\n")
        terminal.seen.wait_for("not a key")
        terminal.type("\n")
        terminal.seen.wait_for("API key: ")
        terminal.type("sk-hidden\n")
        code, seen = terminal.end()
    assert code == 0
    assert "sk-hidden" not in seen
    assert written(path) == {"base_url": "http://127.0.0.1:8080/v1", "model": "m", "api_key": "sk-hidden"}


@pytest.mark.parametrize(("typed", "code"), [("\x03", 130), ("\x04", 2)])
def test_leaving_in_the_middle_writes_nothing(typed: str, code: int, path: Path, env: dict[str, str]) -> None:
    with Terminal("init", env=env) as terminal:
        terminal.seen.wait_for("[deepseek]: ")
        terminal.wait_until_reading()
        terminal.type(typed)
        ended, seen = terminal.end()
    assert ended == code
    assert "Traceback" not in seen
    assert not path.exists()
