"""``unbroken exec``: what the program is given, what comes of its turns, and what a shell sees of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.programs import Cli, Ended, untimed
from unbroken.cli.exec import summary
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream
from unbroken.relay.recorder import Totals

TOKEN = ScriptedAnswer(text="TOKEN-42")
ASKING = str(Path(__file__).with_name("asking.py"))
ASK = (sys.executable, ASKING)
NO_TURN = "unbroken: no turn came through the relay: where does the program take its base URL from?\n"
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


def python(code: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *args)


# Turns


def test_a_turn_that_was_cut_is_whole_and_told_of(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_role")], answer=TOKEN) as upstream:
        ended = cli("exec", "--", *ASK, OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="sk-mine")
        assert [request.header("authorization") for request in upstream.requests] == ["Bearer sk-mine"] * 2
        assert [request.target for request in upstream.requests] == ["/v1/chat/completions"] * 2
    assert (ended.code, ended.out) == (0, "TOKEN-42")
    assert ended.err == "unbroken: 1 turn, 1 answered, 1 survived a lost attempt\n"


def test_an_undisturbed_turn(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream:
        ended = cli("exec", *ASK, OPENAI_BASE_URL=upstream.url)
    assert (ended.out, ended.err) == ("TOKEN-42", "unbroken: 1 turn, 1 answered, no attempt lost\n")


def test_quiet_says_nothing(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream:
        assert cli("exec", "-q", "--", *ASK, OPENAI_BASE_URL=upstream.url).err == ""
        assert cli("exec", *ASK, OPENAI_BASE_URL=upstream.url, UNBROKEN_EXEC_QUIET="1").err == ""


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        (Totals(turns=1, answered=1), "1 turn, 1 answered, no attempt lost"),
        (Totals(turns=3, answered=3, saved=2), "3 turns, 3 answered, 2 survived a lost attempt"),
        (Totals(turns=3, answered=2, saved=1, cut=1), "3 turns, 2 answered, 1 survived a lost attempt, 1 cut"),
        (Totals(turns=2, answered=1), "2 turns, 1 answered"),
        (Totals(passed=1), "no turn came through the relay (1 other request did): where does the program take"),
        (Totals(passed=2), "no turn came through the relay (2 other requests did): where does the program take"),
    ],
)
def test_the_line_at_the_end(totals: Totals, said: str) -> None:
    assert summary(totals).startswith(said)


def test_a_program_that_asks_elsewhere_is_told(cli: Cli) -> None:
    assert cli("exec", "--", "true") == Ended(0, "", NO_TURN)


def test_the_users_own_variable_counts_for_all_of_its_provider(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream:
        ended = cli("exec", "-q", *ASK, "OPENAI_BASE_URL", OPENAI_API_BASE=upstream.url)
        assert (ended.out, len(upstream.requests)) == ("TOKEN-42", 1)


def test_an_upstream_of_the_command_line_is_nearer_than_a_variable(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as mine, Upstream() as other:
        given = ("--upstream", f"openai={mine.url}", "--upstream", f"work={mine.origin}/x")
        assert cli("exec", "-q", *given, *ASK, OPENAI_BASE_URL=other.url).out == "TOKEN-42"
        at = ("UNBROKEN_RELAY_URL", "/work/chat/completions")
        assert cli("exec", "-q", *given, *ASK, *at, OPENAI_BASE_URL=other.url).out == "TOKEN-42"
        assert [request.target for request in mine.requests] == ["/v1/chat/completions", "/x/chat/completions"]
        assert not other.requests


def test_the_proxy_is_for_the_relay_and_not_before_it(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream, CuttingProxy(idle=60) as proxy:
        variables = {"OPENAI_BASE_URL": upstream.url, "HTTP_PROXY": proxy.url, "http_proxy": proxy.url}
        assert cli("exec", "-q", *ASK, **variables).out == "TOKEN-42"
        assert cli("exec", "-q", "--no-proxy", *ASK, **variables).out == "TOKEN-42"
        assert len(proxy.tunnels) == 1
        assert len(upstream.requests) == 2


def test_the_log_goes_to_a_file(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with Upstream(faults=[Fault("rst", "before_headers")], answer=TOKEN) as upstream:
        assert cli("exec", "-q", "--log", str(log), *ASK, OPENAI_BASE_URL=upstream.url).err == ""
    before, again, ended = log.read_text().splitlines()
    assert before == "before"
    assert "↻ cut after 0.0 s, before any output (connection reset)" in untimed(again)
    assert "POST /openai/v1/chat/completions · 200 answered" in ended
    assert ended[:4].isdigit()


# What belongs to whom on the command line


@pytest.mark.parametrize("separator", [(), ("--",)])
def test_options_behind_the_program_are_the_programs(separator: tuple[str, ...], cli: Cli) -> None:
    given = ["--model", "x", "-q", "--quiet", "--help", "-h", "--", "--upstream", "a b", ""]
    ended = cli("exec", *separator, *python(SHOW, *given))
    assert json.loads(ended.out) == given
    assert ended.err == NO_TURN


def test_help_of_the_program_does_not_hide_the_file(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[relay]\nheartbeet = 1")
    ended = cli("exec", *python(SHOW, "--help"), UNBROKEN_CONFIG=str(config))
    assert (ended.code, ended.out) == (2, "")
    assert "unknown key 'relay.heartbeet'; did you mean 'heartbeat'?" in ended.err
    assert cli("exec", "--help", UNBROKEN_CONFIG=str(config)).code == 0


def test_what_the_file_says_of_a_server_is_not_meant(cli: Cli, tmp_path: Path) -> None:
    """``quiet`` of ``[relay]`` is about its log."""
    config = tmp_path / "config.toml"
    config.write_text("[relay]\nquiet = true\nworkers = 3\nport = 1\nlog_format = 'json'")
    assert cli("exec", "true", UNBROKEN_CONFIG=str(config)).err == NO_TURN


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["exec"], "Missing argument 'COMMAND [ARGS]...'."),
        (["exec", "--quit", "--", "true"], "No such option '--quit'. Did you mean '--quiet'?"),
        (["exec", "--upstream", "x", "true"], "--upstream takes NAME=URL, such as work=https://llm.example.com/v1"),
        (["exec", "--upstream", "=http://x", "true"], "--upstream takes NAME=URL"),
        (["exec", "--upstream", "a=x", "true"], "'x' is not an http:// or https:// URL"),
        (["exec", "--upstream", "A=http://x", "true"], "'A' cannot name an upstream"),
        (["exec", "--heartbeat", "soon", "true"], "'soon' is not a number of seconds"),
        (["exec", "--proxy", "socks4://x:1", "true"], "unknown scheme socks4://"),
        (["exec", "--ca-file", "/nope", "true"], "cannot use the CA file '/nope': No such file or directory"),
        (["exec", "--log", "/nope/log", "true"], "cannot write /nope/log: No such file or directory"),
        (["exec", "--first-output", "0", "true"], "--first-output cannot be 0"),
    ],
)
def test_mistakes_are_2_and_told(args: list[str], said: str, cli: Cli) -> None:
    ended = cli(*args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err


def test_a_variable_that_is_no_url_is_named(cli: Cli) -> None:
    ended = cli("exec", "true", ANTHROPIC_BASE_URL="mine:1")
    assert (ended.code, ended.err[:32]) == (2, "unbroken: ANTHROPIC_BASE_URL: 'm")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("unbroken exe", "plain,exec"),
        ("unbroken exec --ear", "plain,--early-heartbeat"),
        ("unbroken exec the-pro", "plain,the-program"),
        ("unbroken exec -- the-pro", "plain,the-program"),
        ("unbroken exec ./the", "file,./the"),
        ("unbroken exec -q the-program --file /tm", "file,/tm"),
    ],
)
def test_words_are_completed(words: str, offered: str, cli: Cli, tmp_path: Path) -> None:
    script(tmp_path / "the-program", "", 0o755)
    shell = {"_UNBROKEN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ended = cli(PATH=str(tmp_path), UNBROKEN_CONFIG="/nope", **shell)
    assert (ended.code, ended.out, ended.err) == (0, f"{offered}\n", "")


# Exit codes


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (python("raise SystemExit(7)"), 7),
        (python("import os; os.kill(os.getpid(), 9)"), 137),
        (python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), 143),
    ],
)
def test_the_exit_code_is_the_programs(program: tuple[str, ...], code: int, cli: Cli) -> None:
    assert cli("exec", "-q", "--", *program).code == code


def script(path: Path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_program_that_cannot_be_run_is_126_or_127(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = script(tmp_path / "here", "", 0o644)
    orphan = script(tmp_path / "orphan", "#!/nope/interpreter\n", 0o755)
    alien = script(tmp_path / "alien", "\x7fELF nonsense", 0o755)
    monkeypatch.chdir(tmp_path)
    for program, code, said in [
        ("nope-nope", 127, "nope-nope: command not found"),
        ("here", 127, "here: command not found"),
        (here, 126, f"{here}: not executable"),
        (str(tmp_path), 126, f"{tmp_path}: a folder"),
        (orphan, 127, f"{orphan}: No such file or directory"),
        (alien, 126, f"{alien}: Exec format error"),
        (f"{here}/x", 127, f"{here}/x: command not found"),
    ]:
        ended = cli("exec", "--", program)
        assert (ended.code, ended.out, ended.err) == (code, "", f"unbroken: {said}\n")
