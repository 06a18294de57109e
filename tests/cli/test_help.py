"""Help, typos, and what a start costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import unbroken.cli
import unbroken.client
from cli.programs import Cli
from unbroken.cli.doctor import command as doctor
from unbroken.cli.exec import command as execute
from unbroken.cli.relay import command as relay
from unbroken.cli.run import command as run
from unbroken.core.dialects import DIALECTS
from unbroken.lab import Upstream

HEAVY = {"httpcore2", "httpx", "httpx2", "anyio", "trio", "rich", "h2", "ssl", "msgspec", "asyncio", "socket", "openai"}
HEAVY |= {"uvicorn", "prometheus_client", "unbroken.relay", "sqlite3"}


NOT_USED_BY_A_RUN = {"ssl", "h2", "hpack", "hyperframe", "socksio", "asyncio", "anyio", "email", "http", "json"}
NOT_USED_BY_A_RUN |= {"statistics", "tomllib", "multiprocessing", "concurrent", "urllib.request", "xml", "httpx2"}
NOT_USED_BY_A_RUN |= {"unbroken.client.asynchronous", "unbroken.drivers.asynchronous", "unbroken.wire.async_http"}
NOT_USED_BY_A_RUN |= {"unbroken.wire.tls", "unbroken.wire.http2", "unbroken.wire.socks", "unbroken.cli.json_output"}
NOT_USED_BY_A_RUN |= {"sqlite3", "unbroken.journal.database"}
"""What a turn of chat completions over plain HTTP has no use for."""


def loaded(code: str, env: dict[str, str], tmp_path: Path) -> set[str]:
    """The modules that are loaded once ``code`` has run."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nsys.stderr.write(' '.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return set(ran.stderr.split())


HELPS = [
    ["--help"],
    ["run", "--help"],
    ["exec", "--help"],
    ["relay", "--help"],
    ["init", "--help"],
    ["doctor", "--help"],
]


@pytest.mark.parametrize("args", [*HELPS, ["--version"]])
def test_help_loads_nothing_heavy(args: list[str], env: dict[str, str], tmp_path: Path) -> None:
    found = loaded(f"sys.argv[1:] = {args}; from unbroken.cli import main; main()", env, tmp_path)
    assert "click" in found
    assert not found & HEAVY


def test_the_package_loads_nothing_heavy(env: dict[str, str], tmp_path: Path) -> None:
    bare = loaded("pass", env, tmp_path)
    found = loaded("import unbroken", env, tmp_path)
    assert not found & (HEAVY | {"click", "unbroken.client", "unbroken.core"})
    assert len(found - bare) < 30


@pytest.mark.parametrize(("package", "name"), [(unbroken, "Text"), (unbroken.client, "TurnStream")])
def test_a_public_name_is_resolved_once(package: ModuleType, name: str) -> None:
    """Programs match each event against ``unbroken.Text``."""
    found = getattr(package, name)
    assert vars(package)[name] is found


def test_a_run_loads_only_what_it_uses(env: dict[str, str], tmp_path: Path) -> None:
    with Upstream() as upstream:
        args = ["run", "--quiet", "--base-url", upstream.url, "hi"]
        found = loaded(f"sys.argv[1:] = {args}; from unbroken.cli import main; main()", env, tmp_path)
    assert {"unbroken.client.synchronous", "unbroken.wire.http1"} <= found
    assert not found & NOT_USED_BY_A_RUN
    assert packages(found) == {"openai_chat"}


def test_a_client_loads_the_dialect_that_it_speaks(env: dict[str, str], tmp_path: Path) -> None:
    for dialect in DIALECTS:
        client = f"unbroken.Client(base_url='http://localhost/v1', dialect={dialect.name!r})"
        found = loaded(f"import unbroken; {client}", env, tmp_path)
        assert packages(found) == {dialect.name.replace("-", "_")}
        assert not found & (NOT_USED_BY_A_RUN | {"click"})


def packages(found: set[str]) -> set[str]:
    """The dialects among the modules."""
    stem = "unbroken.core.dialects."
    return {name.removeprefix(stem).partition(".")[0] for name in found if name.startswith(stem)} - {"common"}


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert unbroken.cli.execute([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: unbroken [OPTIONS]")
    assert err == ""


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("args", HELPS)
def test_help_fits(
    args: list[str], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert unbroken.cli.execute(args) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= width


@pytest.mark.parametrize(("name", "command"), [("run", run), ("exec", execute), ("relay", relay), ("doctor", doctor)])
def test_the_help_names_every_option(name: str, command: click.Command, capsys: pytest.CaptureFixture[str]) -> None:
    unbroken.cli.execute([name, "--help"])
    out = capsys.readouterr().out
    assert all(name in out for param in command.params for name in param.opts if name.startswith("-"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rnu", "hi"], "there is no command 'rnu'; did you mean 'run'?\nTry 'unbroken --help'.\n"),
        (["Why is the sky blue?"], "to ask a model, say: unbroken run ..."),
        (["frobnicate"], "there are run, exec, relay, init, demo, lab"),
        (["run", "hi", "--modle", "m"], "No such option '--modle'. "),
        (["run", "hi", "there"], "Got unexpected extra argument (there)"),
        (["run", "hi", "--idle", "soon"], "'soon' is not a number of seconds"),
        (["run", "hi", "--idle", "inf"], "inf is not between 0 and a year, in seconds"),
        (["run", "hi", "--ping", "nan"], "nan is not between 0 and a year, in seconds"),
        (["run", "hi", "--provider", "ollama", "--first-output", "0"], "--first-output cannot be 0"),
        (["run", "hi", "--provider", "ollama", "--replays", "-1"], "--replays cannot be -1"),
        (["run", "hi", "--provider", "nope"], "unknown provider 'nope'; known are deepseek, openai,"),
        (
            ["run", "hi", "--provider", "deepseek"],
            "no API key for deepseek: set the environment variable DEEPSEEK_API_KEY",
        ),
        (["run", "hi"], "no provider: name one, or a base URL, or set one of DEEPSEEK_API_KEY,"),
        (["run", "hi", "--provider", "together", "--api-key-env", "HOME"], "name a model: together has no default"),
        (["run", "hi", "--base-url", "ftp://x"], "'ftp://x' is not an http:// or https:// URL"),
        (["run", "hi", "--base-url", "localhost:8080/v1"], "is not an http:// or https:// URL"),
        (
            ["run", "hi", "--provider", "ollama", "--proxy", "socks4://h:1"],
            "unknown scheme socks4://; use one of http,",
        ),
        (["run", "hi", "--base-url", "https://127.0.0.1:1", "--ca-file", "/nope"], "cannot use the CA file '/nope'"),
        (["run", "", "--provider", "ollama", "--model", "m"], "no prompt"),
    ],
)
def test_mistakes_are_2_and_told(args: list[str], said: str, cli: Cli) -> None:
    ended = cli(*args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err


def test_the_commands_of_the_list_are_there(cli: Cli) -> None:
    for name in ("run", "exec", "relay", "init", "demo", "lab", "doctor"):
        assert cli(name, "--help").out.startswith(f"Usage: unbroken {name} ")
