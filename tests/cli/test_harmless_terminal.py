"""What a terminal is shown of an answer that would deceive its reader, and what a pipe gets."""

from __future__ import annotations

import json

import pytest

from cli.programs import run
from cli.terminals import Terminal
from cli.test_harmless import REPLACED, ZWJ, ZWNJ
from unbroken.lab import Fault, ScriptedAnswer, Upstream

SPOOF = "if (x \u202e// admin \u2066) pay\u200bpal\U000e0041"
SPOOFED = "if (x \ufffd// admin \ufffd) pay\ufffdpal\ufffd"
FAMILY = ["👨", ZWJ, "👩", f"{ZWJ}👧 می{ZWNJ}", "خواهم"]


@pytest.mark.parametrize("term", ["xterm", "dumb", ""])
def test_an_answer_and_its_reasoning_on_a_terminal(term: str, env: dict[str, str]) -> None:
    answer = ScriptedAnswer(text=[SPOOF, " ", *FAMILY, "x", ZWJ], reasoning=[SPOOF, *FAMILY])
    env |= {"TERM": term, "NO_COLOR": "1"}
    with (
        Upstream(answer=answer) as upstream,
        Terminal("run", "--base-url", upstream.url, "--show-reasoning", "hi", env=env) as terminal,
    ):
        code, seen = terminal.end()
    family = "".join(FAMILY)
    assert code == 0
    assert f"{SPOOFED}{family}\n\n{SPOOFED} {family}x\ufffd\n" in seen


def test_errors_and_tool_calls_on_a_terminal(env: dict[str, str]) -> None:
    refusal = Fault("status", "before_headers", status=400, error={"message": SPOOF})
    call = ScriptedAnswer(text="", tool_calls=[("1", "f", [json.dumps({"x": SPOOF}, ensure_ascii=False)])])
    with Upstream(faults=[refusal], answer=call) as upstream:
        for expected in (3, 0):
            with Terminal("run", "--base-url", upstream.url, "hi", env=env) as terminal:
                code, seen = terminal.end()
            assert code == expected
            assert SPOOFED in seen


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_on_a_terminal_has_escapes_and_loses_nothing(form: str, env: dict[str, str]) -> None:
    text = f"{SPOOF}\x9b31m\x1b[0m{''.join(FAMILY)}\u200e"
    with Upstream(answer=ScriptedAnswer(text=[text])) as upstream:
        with Terminal("run", "--base-url", upstream.url, "-q", "--format", form, "hi", env=env) as terminal:
            code, seen = terminal.end()
        piped = run("run", "--base-url", upstream.url, "-q", "--format", form, "hi", env=env)
    assert code == 0
    assert not set(seen) & {*REPLACED, "\u200e"}
    assert text in [json.loads(line).get("text") for line in seen.splitlines()]
    assert set(piped.out) >= {"\u202e", "\u200b", "\U000e0041", "\u200e"}


def test_a_pipe_gets_every_character(env: dict[str, str]) -> None:
    text = "".join(REPLACED) + "".join(FAMILY) + ZWJ
    with Upstream(answer=ScriptedAnswer(text=[text])) as upstream:
        assert run("run", "--base-url", upstream.url, "-q", "hi", env=env).out == f"{text}\n"
