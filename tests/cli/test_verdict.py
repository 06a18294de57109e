"""``unbroken lab verdict``: how it runs a program, and what it tells. What it finds is in ``tests/lab``."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cli.programs import Cli, Program, run
from cli.terminals import Terminal, screen
from unbroken.cli.secret_text import SecretText
from unbroken.cli.verdict_runs import DUMMY_KEY, Trials, program_environment
from unbroken.lab import catalogue
from unbroken.lab.verdict import FINE

CLIENTS = Path(__file__).parents[1] / "lab" / "judged"
GOOD = (sys.executable, "-S", str(CLIENTS / "good_and_loud.py"))
BAD = (sys.executable, "-S", str(CLIENTS / "takes_any_finish.py"))
VERDICT = ("lab", "verdict")
PATIENT = ("--timeout", "100")
SECRET = "sk-proj-0123456789abcdef"

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")


def told(*args: str, env: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    ended = run(*VERDICT, "--json", *PATIENT, *args, env=env)
    assert ended.out, ended.err
    return ended.code, json.loads(ended.out)


# -- what is refused


def test_its_help_names_the_verdicts_and_the_exit_codes(cli: Cli) -> None:
    out = cli(*VERDICT, "--help").out
    for words in ("failed silently", "doubled output", "hammered", "hung", "paid twice", "failed loudly", "survived"):
        assert words in out
    assert "Exit codes:" in out
    assert "verdict" in cli("lab", "--help").out


def test_a_list_names_every_scenario_and_says_what_happens(cli: Cli) -> None:
    out = cli(*VERDICT, "--list").out
    assert out.splitlines() == [
        f"{name.ljust(max(map(len, catalogue())))}  {scenario.about}" for name, scenario in catalogue().items()
    ]
    assert "finish-error" not in cli(*VERDICT, "--list", "--dialect", "gemini").out


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((), "name a program: unbroken lab verdict -- COMMAND"),
        (("--scenario", "nothin", "--", "true"), "unknown scenario 'nothin'; the scenarios are: nothing, "),
        (("--scenario", "not-there.toml", "--", "true"), "cannot read not-there.toml: No such file"),
        (("--dialect", "latin", "--", "true"), "unknown dialect 'latin'; known are openai-chat"),
        (("--timeout", "0", "--", "true"), "--timeout must be more than 0"),
        (("--jobs", "0", "--", "true"), "'--jobs'"),
        (("--told", "(", "--", "true"), "--told: "),
        (("--html", "/not/there/report.html", "--", "true"), "cannot write /not/there/report.html: No such file"),
        (("--", "true"), "sent no generation call to the lab: where does it take its base URL from?"),
    ],
)
def test_what_cannot_be_judged_is_a_mistake_of_usage(args: tuple[str, ...], complaint: str, cli: Cli) -> None:
    ended = cli(*VERDICT, *args)
    assert ended.code == 2
    assert complaint in ended.err
    assert "Traceback" not in ended.err


def test_a_file_that_is_no_scenario_is_named_with_its_key(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('about = "x"\nfaults = ["rst@lunch"]')
    ended = cli(*VERDICT, "--scenario", str(file), "--", "true")
    assert ended.code == 2
    assert f"{file}: faults[0]: 'rst@lunch' is not a fault: unknown point; the kinds are rst" in ended.err


def test_a_scenario_with_another_answer_shows_nothing(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('about = "x"\n[answer]\ntext = "Hello"')
    ended = cli(*VERDICT, "--scenario", str(file), "--", "true")
    assert ended.code == 2
    assert f"{file}: answer.text: only the lab's own answer shows what of it arrived" in ended.err


def test_a_program_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    assert cli(*VERDICT, "--", "not-there-at-all").code == 127
    (tmp_path / "text").write_text("x")
    assert cli(*VERDICT, "--", str(tmp_path / "text")).code == 126


def test_a_program_that_shows_nothing_of_the_answer_is_not_judged(env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "quiet.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(CLIENTS)!r})\nfrom chat import ask\n"
        f"ask().read()\nsys.exit('the key is {SECRET}')"
    )
    ended = run(*VERDICT, *PATIENT, "--", sys.executable, "-S", str(script), env=env)
    assert ended.code == 2
    assert "shows nothing of the answer on stdout, even where nothing goes wrong" in ended.err
    assert "It exited with 1; its last words: the key is [hidden]" in ended.err


# -- what is told


def test_a_table_and_a_summary(env: dict[str, str]) -> None:
    ended = run(*VERDICT, *PATIENT, *_scenarios("nothing", "content-filter"), "--", *BAD, env=env)
    assert ended.code == 1
    head, nothing, filtered, blank, summary = ended.out.splitlines()
    assert head.split() == ["scenario", "verdict", "requests", "seconds", "exit"]
    assert re.fullmatch(r"nothing +survived +1 +\d+\.\d +0", nothing)
    reason = "exit code 0, with 12 of the answer's 24 words"
    assert re.fullmatch(rf"content-filter +failed silently +1 +\d+\.\d +0 +{reason}", filtered)
    assert blank == ""
    assert re.fullmatch(r"2 scenarios in \d+ s: 1 failed silently, 1 survived", summary)
    assert ended.err == ""  # no progress where nobody watches


def test_one_object_for_a_program(env: dict[str, str]) -> None:
    code, said = told(*_scenarios("close-in-answer"), "--", *GOOD, env=env)
    assert code == 0
    assert said["fine"] is True
    assert said["command"] == list(GOOD)
    assert said["dialect"] == "openai-chat"
    assert said["verdicts"] == {"failed loudly": 1}
    [found] = said["scenarios"]
    assert found["output"].endswith("word12of24")
    assert "IncompleteRead" in found["stderr"]
    seconds, attempts = found.pop("seconds"), found.pop("attempts")
    assert 0 < seconds < 100
    assert attempts == [{"at": 0.0, "fault": "fin@after_characters:131"}]
    assert {name: found[name] for name in ("scenario", "verdict", "found", "requests", "exit_code")} == {
        "scenario": "close-in-answer",
        "verdict": "failed loudly",
        "found": ["failed loudly"],
        "requests": 1,
        "exit_code": 1,
    }


def test_a_scenario_of_ones_own(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('about = "Cut at once."\nfaults = ["fin@after_token"]')
    code, said = told("--scenario", str(file), "--", *GOOD, env=env)
    assert code == 0
    assert [(found["scenario"], found["verdict"]) for found in said["scenarios"]] == [("mine", "failed loudly")]


def test_a_scenario_of_another_dialect_is_left_out(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "theirs.toml"
    file.write_text('about = "Cut."\nfaults = ["fin@after_token"]\ndialects = ["gemini"]')
    _, said = told("--scenario", str(file), *_scenarios("nothing"), "--", *GOOD, env=env)
    assert [found["scenario"] for found in said["scenarios"]] == ["nothing"]


def test_an_output_may_be_declared_to_tell_of_a_failure(env: dict[str, str]) -> None:
    both = ("--told", "(?i)broke this", *_scenarios("unauthorized"), "--")
    refusing = (sys.executable, "-S", str(CLIENTS / "succeeds_at_a_refusal.py"))
    assert told(*both, *refusing, env=env)[0] == 0
    assert told(*both[2:], *refusing, env=env)[0] == 1


class Page(HTMLParser):
    """What a page has: its tags, its attributes and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_stands_alone_escapes_everything_and_has_no_key(env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        f"import os, runpy, sys\nsys.path.insert(0, {str(CLIENTS)!r})\n"
        "print('<script src=http://example.com/x.js></script>', '\\x00\\x1b[2J', os.environ['MY_TOKEN'])\n"
        "print('Authorization: Bearer abc123def456', file=sys.stderr)\n"
        "runpy.run_path(sys.path[0] + '/good_and_loud.py')\n"
    )
    file = tmp_path / "report.html"
    argv = (sys.executable, "-S", str(script), "--key", SECRET)
    ended = run(
        *(*VERDICT, *PATIENT, "--html", str(file), *_scenarios("nothing", "close-in-answer"), "--", *argv),
        env=env | {"MY_TOKEN": "my-very-own-token"},
    )
    assert ended.code == 0, ended.err
    assert f"the report is in {file}" in ended.err
    source = file.read_text(encoding="utf-8")
    found = Page()
    found.feed(source)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    assert not found.attributes & {"src", "href", "srcset", "onclick", "style", "action"}
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source
    assert "<script src=http://example.com/x.js></script>" in found.text  # as text
    assert "met fin@after_characters:131" in found.text
    assert "\x00" not in source
    assert "\x1b" not in source
    for secret in ("my-very-own-token", SECRET, "abc123def456"):
        assert secret not in source
    assert source.count("[hidden]") >= 5


def test_a_page_that_was_there_stays_where_nothing_is_judged(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("yesterday's")
    assert cli(*VERDICT, "--html", str(file), "--", "true").code == 2
    assert file.read_text() == "yesterday's"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer [hidden]"),
        ('{"api_key": "k-1234"}', '{"api_key": "[hidden]"}'),
        ("x-api-key: k1", "x-api-key: [hidden]"),
        ("https://user:pass@host/path", "https://[hidden]@host/path"),
        ("sk-ant-0123456789ab and AIzaSyA0123456789012345678901", "[hidden] and [hidden]"),
        ("my own secret-value-1!", "my own [hidden]!"),
        ("basic usage, the bearer of news, 12 tokens", "basic usage, the bearer of news, 12 tokens"),
        ("word01of24 word02of24", "word01of24 word02of24"),
        ("https://example.com/a@b", "https://example.com/a@b"),
    ],
)
def test_keys_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert SecretText({"SOME_KEY": "secret-value-1", "HOME": "/home/me", "SHORT_KEY": "word"}).hide(text) == shown


def test_progress_is_shown_on_a_terminal(env: dict[str, str]) -> None:
    args = (*VERDICT, *PATIENT, *_scenarios("nothing", "content-filter"), "--", *GOOD)
    with Terminal(*args, env=env) as terminal:
        terminal.seen.wait_for("of 3", 60)
        terminal.seen.wait_for("2 of 3: content-filter: failed loudly", 60)
        terminal.seen.wait_for("2 scenarios in", 60)
        _, written = terminal.end()
    assert " of 3" not in screen(written)


# -- how the program runs


def test_every_base_url_leads_to_the_lab_and_missing_keys_have_a_value() -> None:
    given = {
        "OPENAI_BASE_URL": "https://real.example.com/v1",
        "AZURE_OPENAI_ENDPOINT": "https://real.example.com",
        "OPENAI_API_KEY": "own",
        "GEMINI_API_KEY": " ",
        "HTTPS_PROXY": "http://proxy.example.com:3128",
    }
    child = program_environment(given, "http://127.0.0.1:9000")
    assert child["OPENAI_BASE_URL"] == "http://127.0.0.1:9000/openai/v1"
    assert child["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9000/anthropic"
    assert child["GOOGLE_GEMINI_BASE_URL"] == "http://127.0.0.1:9000/google"
    assert child["AZURE_OPENAI_ENDPOINT"] == "http://127.0.0.1:9000/azure"
    assert child["UNBROKEN_RELAY_URL"] == "http://127.0.0.1:9000"
    assert child["UNBROKEN_JOURNAL"] == "false"
    assert child["OPENAI_API_KEY"] == "own"
    assert child["GEMINI_API_KEY"] == child["ANTHROPIC_API_KEY"] == DUMMY_KEY
    assert "127.0.0.1" in child["NO_PROXY"]
    assert "real.example.com" not in str(child)


def test_several_run_at_a_time_in_the_order_of_the_catalogue(env: dict[str, str]) -> None:
    names = ("nothing", "reset-in-answer", "close-in-answer", "content-filter")
    _, said = told("--jobs", "3", *_scenarios(*names), "--", *GOOD, env=env)
    assert [found["scenario"] for found in said["scenarios"]] == list(names)


def test_over_tls_the_program_is_told_whom_to_trust(env: dict[str, str]) -> None:
    _, said = told(*_scenarios("tls-ragged-end", "http2-goaway"), "--", *GOOD, env=env)
    assert [found["verdict"] for found in said["scenarios"]] == ["failed loudly", "not judged"]
    assert said["scenarios"][1]["reasons"] == ["it does not speak HTTP/2"]


@pytest.mark.slow
def test_with_unbroken_before_it_a_program_survives(env: dict[str, str]) -> None:
    names = ("close-in-prelude", "clean-end-in-prelude", "http2-reset-stream-in-prelude")
    behind = (sys.executable, "-m", "unbroken", "exec", "--quiet", "--", *GOOD)
    code, said = told(*_scenarios(*names), "--", *behind, env=env)
    assert code == 0
    assert [found["verdict"] for found in said["scenarios"]] == ["survived"] * 3
    assert [found["requests"] for found in said["scenarios"]] == [2, 2, 2]


def test_what_takes_longer_than_a_run_may_take_is_left_out_and_said(env: dict[str, str]) -> None:
    ended = run(*VERDICT, *PATIENT, *_scenarios("nothing", "silence-for-ever"), "--", *GOOD, env=env)
    assert ended.code == 0
    assert re.search(
        r"^silence-for-ever +not judged +0 +0\.0 +- +it takes --timeout 700 or more", ended.out, re.MULTILINE
    )


@pytest.mark.parametrize("name", ["silence-in-prelude", "rate-limited", "http2-dead-path"])
def test_a_scenario_is_not_begun_where_there_is_no_time_for_it(name: str) -> None:
    with Trials(["/not/there"], {}, 5.0) as trials:
        trial = trials.run(catalogue()[name])
    assert trial.verdict.outcome == "not judged"
    assert re.match(r"it takes --timeout (6|90) or more", trial.verdict.reasons[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "timeout", "left_out"),
    [
        ("openai", "150", {"silence-for-ever"}),
        ("anthropic", "80", {"silence-for-ever", "http2-dead-path"}),
        ("google", "80", {"silence-for-ever", "http2-dead-path"}),
    ],
)
def test_unbroken_run_passes_in_every_dialect(
    provider: str, timeout: str, left_out: set[str], env: dict[str, str]
) -> None:
    client = (sys.executable, "-m", "unbroken", "run", "--provider", provider, "Hello")
    ended = run(*VERDICT, "--json", "--timeout", timeout, "--", *client, env=env, timeout=900)
    assert ended.out, ended.err
    found = {one["scenario"]: one for one in json.loads(ended.out)["scenarios"]}
    assert {name: one for name, one in found.items() if one["verdict"] not in FINE} == {}
    assert {name for name, one in found.items() if one["verdict"] == "not judged"} == left_out
    assert {found[name]["verdict"] for name in SAVED - left_out} == {"survived"}
    assert ended.code == 0


SAVED = {"reset-in-prelude", "close-in-prelude", "clean-end-in-prelude", "idle-cut-in-prelude", "http2-dead-path"}
"""What a program does not survive by itself, most of them."""


@needs_posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("when", ["nothing", "silence-before-headers"])
def test_what_it_runs_ends_with_it(
    when: str, number: signal.Signals, code: int, env: dict[str, str], tmp_path: Path
) -> None:
    """In the first run, and in one of several."""
    script = tmp_path / "client.py"
    script.write_text(
        "import os, pathlib, runpy, signal, subprocess, sys, time\n"
        f"sys.path.insert(0, {str(CLIENTS)!r})\n"
        "first = pathlib.Path('first')\n"
        f"if {when != 'nothing'!r} and not first.exists():\n"
        "    first.touch()\n"
        "    runpy.run_path(sys.path[0] + '/good_and_loud.py')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "pathlib.Path('pids.new').write_text(f'{os.getpid()} {child.pid}')\n"
        "os.replace('pids.new', 'pids')\n"
        "time.sleep(600)\n"
    )
    args = (*VERDICT, "--timeout", "500", *_scenarios(when), "--", sys.executable, "-S", str(script))
    with Program(*args, env=env) as program:
        pids = [int(pid) for pid in _read_when_there(Path(env["HOME"]) / "pids").split()]
        program.send(number)
        assert program.err.wait_for_end(60) == b""
        assert program.wait() == code
    assert all(map(_has_ended, pids))


def _scenarios(*names: str) -> list[str]:
    return [word for name in names for word in ("--scenario", name)]


def _read_when_there(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def _has_ended(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False
