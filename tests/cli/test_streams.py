"""Standard streams that are closed, full, blocked, or in another encoding."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from cli.programs import Program, run, shell, untimed
from unbroken.lab import Fault, ScriptedAnswer, Upstream

LINES = ScriptedAnswer(text=[f"line {number}\n" for number in range(200)], gap=0.02)


def test_a_reader_that_leaves_ends_the_turn(env: dict[str, str]) -> None:
    with Upstream(answer=LINES) as upstream:
        script = 'set -o pipefail; unbroken run --base-url "$URL" hi | head -1; exit ${PIPESTATUS[0]}'
        ended = shell(script, env=env | {"URL": upstream.url})
        assert upstream.wait_for(lambda: upstream.requests[0].gone, timeout=10)
    assert (ended.code, ended.out) == (141, "line 0\n")
    assert ended.err == "unbroken: stdout was closed, so the turn was ended\n"


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_full_disk_is_told(form: str, env: dict[str, str]) -> None:
    with Upstream() as upstream:
        script = f'unbroken run --base-url "$URL" --format {form} hi > /dev/full'
        ended = shell(script, env=env | {"URL": upstream.url})
    assert (ended.code, ended.err) == (1, "unbroken: cannot write the answer: No space left on device\n")


def test_help_on_a_full_disk_is_told(env: dict[str, str]) -> None:
    ended = shell("unbroken --help > /dev/full", env=env)
    assert (ended.code, ended.err) == (1, "unbroken: No space left on device\n")


def test_a_closed_stdout_is_told_before_anything_is_asked(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        ended = shell('unbroken run --base-url "$URL" hi >&-', env=env | {"URL": upstream.url})
        assert not upstream.requests
    assert (ended.code, ended.err) == (2, "unbroken: stdout is closed: there is nowhere to write the answer\n")


@pytest.mark.parametrize("redirection", ["<&-", "2>&-", "<&- 2>&-", "2>/dev/full", "2> >(exit)"])
def test_the_answer_comes_without_the_other_streams(redirection: str, env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")]) as upstream:
        ended = shell(f'unbroken run --base-url "$URL" -v hi {redirection}', env=env | {"URL": upstream.url})
    assert (ended.code, ended.out) == (0, "Hello from the lab.\n")
    assert "Traceback" not in ended.err


def test_a_usage_error_needs_no_stderr(env: dict[str, str]) -> None:
    assert shell("unbroken run --provider nope hi 2>&-", env=env).code == 2


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_locale_of_another_encoding(variables: dict[str, str], env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")], answer=ScriptedAnswer(text="Grüße")) as upstream:
        ended = run("run", "--base-url", upstream.url, "Grüße?", env=env | variables)
        assert b'"content":"Gr\xc3\xbc\xc3\x9fe?"' in upstream.requests[0].body
    assert ended.code == 0
    assert ended.out in ("Grüße\n", "Gr\\xfc\\xdfe\n")


def test_an_ascii_terminal_gets_ascii(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")], answer=ScriptedAnswer(text="Grüße")) as upstream:
        ended = run("run", "--base-url", upstream.url, "hi", env=env | {"PYTHONIOENCODING": "ascii"})
    assert ended.out == "Gr\\xfc\\xdfe\n"
    assert untimed(ended.err).splitlines() == [
        "~ cut after 0.0 s, before any output (connection reset) - replaying, attempt 2 of 4",
        "  - 10 tok - in 7 (0 cached / 7 new) - out 3 - 1 attempt lost",
    ]


def test_json_is_utf8_in_every_locale(env: dict[str, str]) -> None:
    with Upstream(answer=ScriptedAnswer(text="Grüße")) as upstream:
        ended = run(
            "run", "--base-url", upstream.url, "--format", "json", "hi", env=env | {"PYTHONIOENCODING": "ascii"}
        )
    assert '"text":"Grüße"' in ended.out


def test_a_stdout_that_somebody_made_non_blocking(env: dict[str, str]) -> None:
    text = "x" * 1_000_000
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with (
        Upstream(answer=ScriptedAnswer(text=[text])) as upstream,
        Program("run", "--base-url", upstream.url, "-q", "hi", env=env, stdout=writing) as program,
        os.fdopen(reading, "rb") as pipe,
    ):
        os.close(writing)
        assert pipe.read().decode() == f"{text}\n"
        assert program.end().code == 0


def test_a_reader_that_does_not_read_cannot_hold_up_a_signal(env: dict[str, str]) -> None:
    reading, writing = os.pipe()
    with (
        Upstream(answer=ScriptedAnswer(text=["x" * 1_000_000])) as upstream,
        Program("run", "--base-url", upstream.url, "-q", "hi", env=env, stdout=writing) as program,
        os.fdopen(reading, "rb", buffering=0) as pipe,
    ):
        os.close(writing)
        pipe.read(1)  # it has begun; the pipe holds 64 KiB and no more
        program.signal(signal.SIGTERM)
        assert program.end().code == 143


# Stdin


def test_stdin_comes_before_the_argument(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        run("run", "--base-url", upstream.url, "Review this", env=env, stdin="diff für\n".encode())
        assert '"content":"diff für\\n\\n\\nReview this"'.encode() in upstream.requests[0].body


def test_bytes_that_are_no_text_are_refused(env: dict[str, str]) -> None:
    ended = run("run", "--provider", "ollama", "--model", "m", env=env, stdin=b"abc\xff\xfe")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: stdin is not UTF-8 text (byte 3); convert it first")


@pytest.mark.parametrize("stdin", [b"", b" \n"])
def test_an_empty_stdin_is_no_prompt(stdin: bytes, env: dict[str, str]) -> None:
    ended = run("run", "--provider", "ollama", "--model", "m", env=env, stdin=stdin)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: no prompt: give it as an argument")


def test_a_stdin_that_stays_open_is_told_to_be_waited_for(env: dict[str, str]) -> None:
    with (
        Upstream() as upstream,
        Program("run", "--base-url", upstream.url, "hi", env=env, stdin=subprocess.PIPE) as program,
    ):
        program.err.wait_for("reading stdin until it ends, as part of the prompt (< /dev/null: leave it out)\n")
        assert not upstream.connections
        program.end_stdin()
        assert program.end().code == 0


def test_a_stdin_that_can_only_be_written_counts_as_none(env: dict[str, str]) -> None:
    """As nohup leaves it."""
    with Upstream() as upstream:
        ended = shell('unbroken run --base-url "$URL" -q hi 0> /dev/null', env=env | {"URL": upstream.url})
    assert (ended.code, ended.out) == (0, "Hello from the lab.\n")
