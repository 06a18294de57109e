"""``unbroken completion``: the scripts, and what real shells make of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.programs import Cli, Ended, environment, shell
from cli.terminals import Terminal
from unbroken.cli.commands import _COMMANDS
from unbroken.cli.completion import SHELLS

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose ``unbroken`` is in the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "unbroken"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m unbroken "$@"\n')
    script.chmod(0o755)
    env = environment(tmp_path)
    return env | {"PATH": f"{folder}:{env['PATH']}", "PS1": "$ ", "INPUTRC": "/dev/null"}


def completed(words: str, env: dict[str, str]) -> set[str]:
    """What bash is given for the last of these words."""
    number = len(words.split(" ")) - 1
    ended = shell(
        f"""source <(command unbroken completion bash)
        COMP_WORDS=({words.rpartition(" ")[0]} '{words.rpartition(" ")[2]}') COMP_CWORD={number}
        _unbroken_completion unbroken; printf '%s\\n' "${{COMPREPLY[@]}}" """,
        env=env,
    )
    assert ended.code == 0, ended.err
    return set(ended.out.split())


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_is_printed(name: str, cli: Cli) -> None:
    ended = cli("completion", name)
    assert (ended.code, ended.err) == (0, "")
    assert f"_UNBROKEN_COMPLETE={name}_complete" in ended.out


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_accepts_its_script(name: str, cli: Cli) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    subprocess.run([name, "-n"], input=cli("completion", name).out, text=True, check=True)


@pytest.mark.parametrize("args", [["tcsh"], []])
def test_another_shell_is_told(args: list[str], cli: Cli) -> None:
    ended = cli("completion", *args)
    assert (ended.code, ended.out) == (2, "")
    assert all(name in ended.err for name in SHELLS)


def test_its_help_says_where_to_put_it(cli: Cli) -> None:
    out = cli("completion", "--help").out
    for place in ("~/.bashrc", "~/.zshrc", "~/.config/fish/completions/unbroken.fish"):
        assert place in out


@needs_bash
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("unbroken re", {"relay"}),
        ("unbroken r", {"run", "relay"}),
        ("unbroken ", set(_COMMANDS)),
        ("unbroken --v", {"--version"}),
        ("unbroken run --pro", {"--provider", "--proxy"}),
        ("unbroken run --format js", {"json", "jsonl"}),
        ("unbroken lab pr", {"proxy"}),
        ("unbroken completion ", set(SHELLS)),
        ("unbroken nope", set()),
    ],
)
def test_bash_is_given_the_right_words(words: str, found: set[str], installed: dict[str, str]) -> None:
    assert completed(words, installed) == found


@needs_bash
def test_a_broken_configuration_does_not_disturb(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("nonsense")
    assert completed("unbroken re", installed | {"UNBROKEN_CONFIG": str(tmp_path / "config.toml")}) == {"relay"}


@needs_bash
def test_tab_in_a_real_bash(installed: dict[str, str]) -> None:
    with Terminal(env=installed, program=["bash", "--norc", "--noprofile", "-i"]) as bash:
        bash.seen.wait_for("$ ")
        bash.type('eval "$(unbroken completion bash)"; echo is "ready"\n')
        bash.seen.wait_for("is ready")
        bash.type("unbroken re\t")
        bash.seen.wait_for("unbroken relay ")
        bash.type("--prox\t")
        bash.seen.wait_for("unbroken relay --proxy ")
        bash.type("\x15unbroken r\t\t")
        bash.seen.wait_for("run    relay")
        bash.type("\x15exit\n")
        assert bash.end()[0] == 0


def test_names_are_completed_without_the_commands_modules(env: dict[str, str], tmp_path: Path) -> None:
    script = "import sys; sys.argv = ['unbroken']\nfrom unbroken.cli import main\ntry:\n    main()\nfinally:\n"
    script += "    sys.stderr.write(' '.join(sys.modules))"
    asked = {"COMP_WORDS": "unbroken ", "COMP_CWORD": "1", "_UNBROKEN_COMPLETE": "bash_complete"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=env | asked, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "plain,relay" in ran.stdout
    assert not {"unbroken.cli.run", "unbroken.client", "anyio"} & set(ran.stderr.split())


def test_help_lists_it(cli: Cli) -> None:
    assert cli("completion", "--help") == Ended(0, cli("completion", "-h").out, "")
    assert "completion" in cli("--help").out
