"""What ``unbroken exec`` chooses for a program that it knows, and what keeps it from that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.programs import Cli
from unbroken.cli.presets import PRESETS, find_preset
from unbroken.lab import Fault, ScriptedAnswer, Upstream

ANSWER = ScriptedAnswer(text="The tide turns at nine.")
CUT = Fault("fin", "after_token")
TOLD = "unbroken: 1 turn, 1 answered, 1 survived a lost attempt; for qwen: --hold answer (--no-preset: not)\n"
ASKING = Path(__file__).with_name("asking.py")

MakeProgram = Callable[[str], str]


@pytest.fixture
def make_program(tmp_path: Path) -> MakeProgram:
    """Makes a program that asks a model, under a name."""

    def make(name: str) -> str:
        program = tmp_path / name
        timer = "import os, sys; print(os.environ.get('QWEN_STREAM_IDLE_TIMEOUT_MS'), file=sys.stderr)"
        program.write_text(f"#!{sys.executable}\n{timer}\nsys.argv[1:] = []\n{ASKING.read_text('utf-8')}")
        program.chmod(0o755)
        return str(program)

    return make


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("claude -p Hello?", "claude"),
        ("/usr/local/bin/claude --print", "claude"),
        ("claude.exe --output-format json -p Hello?", "claude"),
        ("claude", None),
        ("claude Hello?", None),
        ("claude -p --output-format stream-json", None),
        ("claude -p --output-format=stream-json", None),
        ("opencode run Hello?", "opencode"),
        ("opencode", None),
        ("opencode run --format json Hello?", None),
        ("qwen --prompt=Hello?", "qwen"),
        ("qwen", None),
        ("gemini -p Hello?", None),
        ("python -p claude", None),
    ],
)
def test_who_is_known_in_which_mode(command: str, program: str | None) -> None:
    preset = find_preset(command.split())
    assert (preset and preset.program) == program


def test_a_known_program_never_sees_a_cut_in_its_answer(cli: Cli, make_program: MakeProgram) -> None:
    with Upstream(faults=[CUT], answer=ANSWER) as upstream:
        ended = cli("exec", make_program("qwen"), "-p", OPENAI_BASE_URL=upstream.url)
    assert (ended.code, ended.out) == (0, "The tide turns at nine.")
    assert ended.err == f"0\n{TOLD}"


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--no-preset",), {}),
        ((), {"UNBROKEN_EXEC_NO_PRESET": "1"}),
        (("--hold", "prelude"), {}),
        ((), {"UNBROKEN_HOLD": "prelude"}),
    ],
    ids=str,
)
def test_what_the_user_says_counts(
    cli: Cli, make_program: MakeProgram, options: tuple[str, ...], variables: dict[str, str]
) -> None:
    with Upstream(faults=[CUT], answer=ANSWER) as upstream:
        ended = cli("exec", *options, make_program("qwen"), "-p", OPENAI_BASE_URL=upstream.url, **variables)
    assert ended.code == 1
    assert ended.err.startswith("None\n")
    assert ended.err.endswith("unbroken: 1 turn, 0 answered, 1 cut\n")


@pytest.mark.parametrize("place", ["", "[relay]\n"])
def test_and_so_does_the_file(cli: Cli, make_program: MakeProgram, tmp_path: Path, place: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'{place}hold = "prelude"')
    with Upstream(faults=[CUT], answer=ANSWER) as upstream:
        given = {"OPENAI_BASE_URL": upstream.url, "UNBROKEN_CONFIG": str(config)}
        assert cli("exec", make_program("qwen"), "-p", **given).err.endswith("unbroken: 1 turn, 0 answered, 1 cut\n")


def test_and_what_it_says_of_one_upstream(cli: Cli, make_program: MakeProgram, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[upstreams.openai]\nhold = "prelude"')
    with Upstream(faults=[CUT], answer=ANSWER) as upstream:
        given = {"OPENAI_BASE_URL": upstream.url, "UNBROKEN_CONFIG": str(config)}
        assert "1 turn, 0 answered, 1 cut" in cli("exec", make_program("qwen"), "-p", **given).err


def test_a_variable_that_is_set_stays(cli: Cli, make_program: MakeProgram) -> None:
    with Upstream(answer=ANSWER) as upstream:
        given = {"OPENAI_BASE_URL": upstream.url, "QWEN_STREAM_IDLE_TIMEOUT_MS": "400000"}
        assert cli("exec", make_program("qwen"), "-p", **given).err.startswith("400000\n")


def test_without_a_turn_there_is_nothing_to_tell(cli: Cli, make_program: MakeProgram) -> None:
    quiet = make_program("qwen")
    Path(quiet).write_text(f"#!{sys.executable}\n")
    assert "--no-preset" not in cli("exec", quiet, "-p").err


def test_each_names_its_program_once() -> None:
    assert len({preset.program for preset in PRESETS}) == len(PRESETS)
