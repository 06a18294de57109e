"""What a terminal shows, and that nothing but a terminal gets escape sequences."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trustme

from cli.programs import run, untimed
from cli.terminals import Terminal, screen
from unbroken.lab import Fault, ScriptedAnswer, Upstream

SLOW = ScriptedAnswer(text="TOKEN-42", reasoning=["let me think"], think=60)
NASTY = "\x1b]0;owned\x07\x1b[2Jred\x9b31m\rover\r\nnext\ttab"
SHOWN = "�]0;owned��[2Jred�31mover\nnext\ttab"


def run_on_terminal(upstream: Upstream, *args: str, env: dict[str, str]) -> tuple[int, str]:
    with Terminal("run", "--base-url", upstream.url, *args, "hi", env=env) as terminal:
        return terminal.end()


def test_a_live_line_says_what_is_waited_for_and_leaves_no_trace(env: dict[str, str]) -> None:
    pauses = [Fault("pause", "before_headers", seconds=1.5)]
    with (
        Upstream(faults=pauses, answer=ScriptedAnswer(text="TOKEN-42")) as upstream,
        Terminal("run", "--base-url", upstream.url, "hi", env=env) as terminal,
    ):
        terminal.seen.wait_for("waiting for custom to speak · 1 s")
        code, seen = terminal.end()
    assert code == 0
    assert screen(seen) == "TOKEN-42\n  · 10 tok · in 7 (0 cached / 7 new) · out 3\n"


def test_the_live_line_tells_the_round_trip_of_ping(
    authority: trustme.CA, server_tls: ssl.SSLContext, env: dict[str, str], tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with Upstream(answer=SLOW, ssl_context=server_tls) as upstream:
        flags = ["--base-url", upstream.url, "--ca-file", str(ca_file), "--ping", "0.1"]
        with Terminal("run", *flags, "hi", env=env) as terminal:
            terminal.seen.wait_for("the nearest hop answers in ")
            terminal.type("\x03")
            code, seen = terminal.end()
        assert upstream.pings > 0
    assert code == 130
    assert screen(seen).strip() in ("", "^C")


def test_the_live_line_says_when_the_next_attempt_is_made(env: dict[str, str]) -> None:
    busy = Fault("status", "before_headers", status=503, headers={"retry-after": "20"})
    with (
        Upstream(faults=[busy]) as upstream,
        Terminal("run", "--base-url", upstream.url, "hi", env=env) as terminal,
    ):
        seen = terminal.seen.wait_for("next attempt in 19 s")
        terminal.type("\x03")
        assert terminal.end()[0] == 130
    assert "↻ refused after 0.0 s (HTTP 503) · retrying in 20.0 s, attempt 2 of 11" in untimed(screen(seen))


def test_the_live_line_fits_the_terminal(env: dict[str, str]) -> None:
    with (
        Upstream(answer=SLOW) as upstream,
        Terminal("run", "--base-url", upstream.url, "hi", env=env, columns=20) as terminal,
    ):
        seen = terminal.seen.wait_for("for cust")
    assert max(len(line) for line in screen(seen).split("\n")) == 19


def test_a_live_line_goes_on_while_json_is_collected(env: dict[str, str], tmp_path: Path) -> None:
    with Upstream(
        faults=[Fault("pause", "after_token", seconds=1)], answer=ScriptedAnswer(text="TOKEN-42")
    ) as upstream:
        out = tmp_path / "out"
        flags = ["--base-url", upstream.url, "--format", "json"]
        with Terminal("run", *flags, "hi", env=env, redirected={1: out}) as terminal:
            terminal.seen.wait_for("custom is answering")
            assert terminal.end()[0] == 0
    assert out.read_text().startswith('{"text":"TOKEN-42"')


def test_quiet_shows_no_live_line(env: dict[str, str]) -> None:
    with Upstream(
        faults=[Fault("pause", "before_headers", seconds=1)], answer=ScriptedAnswer(text="TOKEN-42")
    ) as upstream:
        assert run_on_terminal(upstream, "-q", env=env) == (0, "TOKEN-42\n")


def test_reasoning_is_dimmed(env: dict[str, str]) -> None:
    with Upstream(answer=ScriptedAnswer(text="TOKEN-42", reasoning=["let me", " think"])) as upstream:
        _, seen = run_on_terminal(upstream, env=env)
    assert "\x1b[2mlet me\x1b[22m\x1b[2m think\x1b[22m\n\nTOKEN-42\n\x1b[2m  · 10 tok" in seen


def test_reasoning_can_be_left_out(env: dict[str, str]) -> None:
    with Upstream(answer=ScriptedAnswer(text="TOKEN-42", reasoning=["let me think"])) as upstream:
        _, seen = run_on_terminal(upstream, "--no-show-reasoning", env=env)
    assert "think" not in seen


def test_no_color_takes_the_colour_but_not_the_live_line(env: dict[str, str]) -> None:
    answer = ScriptedAnswer(text="TOKEN-42", reasoning=["let me think"])
    with Upstream(faults=[Fault("pause", "before_headers", seconds=0.8)], answer=answer) as upstream:
        _, seen = run_on_terminal(upstream, env=env | {"NO_COLOR": "1"})
    assert "\x1b[2m" not in seen
    assert "\x1b[2K" in seen


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_no_escape_sequences(term: str, env: dict[str, str]) -> None:
    answer = ScriptedAnswer(text="TOKEN-42", reasoning=["let me think"])
    with Upstream(faults=[Fault("pause", "before_headers", seconds=0.8)], answer=answer) as upstream:
        code, seen = run_on_terminal(upstream, env=env | {"TERM": term})
    assert code == 0
    assert "\x1b" not in seen
    assert "TOKEN-42\n" in seen


def test_what_is_no_terminal_gets_no_escape_sequences(env: dict[str, str]) -> None:
    faults = [Fault("rst", "before_headers"), Fault("pause", "before_headers", seconds=0.8)]
    with Upstream(faults=faults, answer=ScriptedAnswer(text="TOKEN-42", reasoning=["hm"])) as upstream:
        ended = run("run", "--base-url", upstream.url, "-v", "--show-reasoning", "hi", env=env)
    assert "\x1b" not in ended.out + ended.err


def test_a_model_cannot_steer_the_terminal(env: dict[str, str]) -> None:
    with Upstream(answer=ScriptedAnswer(text=[NASTY], reasoning=[NASTY])) as upstream:
        _, seen = run_on_terminal(upstream, env=env | {"NO_COLOR": "1"})
    assert seen.count(SHOWN) == 2
    assert "\x1b" not in seen


def test_a_provider_cannot_steer_the_terminal(env: dict[str, str]) -> None:
    refusal = Fault("status", "before_headers", status=400, error={"message": NASTY})
    with Upstream(faults=[refusal]) as upstream:
        code, seen = run_on_terminal(upstream, env=env)
    assert (code, seen) == (3, f"unbroken: HTTP 400: {SHOWN}\n")


def test_a_pipe_gets_the_models_text_as_it_is(env: dict[str, str]) -> None:
    with Upstream(answer=ScriptedAnswer(text=[NASTY])) as upstream:
        ended = run("run", "--base-url", upstream.url, "-q", "hi", env=env)
    assert ended.out == f"{NASTY}\n"


def test_without_a_prompt_it_does_not_wait_for_one(env: dict[str, str]) -> None:
    with Terminal("run", "--provider", "ollama", "--model", "m", env=env) as terminal:
        assert terminal.end() == (2, 'unbroken: no prompt: give it as an argument (unbroken run "...") or on stdin\n')


def test_a_dash_reads_the_prompt_from_the_terminal(env: dict[str, str]) -> None:
    with Upstream() as upstream:
        with Terminal("run", "--base-url", upstream.url, "-", env=env) as terminal:
            terminal.type("typed in\n\x04")
            assert terminal.end()[0] == 0
        assert b'"content":"typed in\\n"' in upstream.requests[0].body


CUT = Fault("clean_end", "after_characters", offset=8)
AGAIN = (
    "↻ cut after 0.0 s, after output (the stream ended without saying how the answer ended)"
    " · restarting, attempt 2 of 4"
)
LINE = f"{'─' * 12} restarted {'─' * 12}"


def test_an_answer_begins_again_below_a_line_and_the_footer_says_so(env: dict[str, str]) -> None:
    tide = ScriptedAnswer(text="The tide goes out.", reasoning=["hm"])
    with Upstream(faults=[CUT], answer=tide) as upstream:
        code, seen = run_on_terminal(upstream, "--after-output", "restart", "--no-show-reasoning", env=env)
    assert code == 0
    assert untimed(screen(seen)).splitlines() == [
        "The tide",
        AGAIN,
        LINE,
        "The tide goes out.",
        "  · 10 tok · in 7 (0 cached / 7 new) · out 3 · 1 attempt lost · restarted after character 8",
    ]


def test_meanwhile_a_live_line_says_what_is_waited_for(env: dict[str, str]) -> None:
    tide = ScriptedAnswer(text="The tide goes out.")
    with (
        Upstream(faults=[CUT, Fault("pause", "before_headers", seconds=1.5)], answer=tide) as upstream,
        Terminal("run", "--base-url", upstream.url, "--after-output", "restart", "hi", env=env) as terminal,
    ):
        terminal.seen.wait_for("waiting for custom to speak · 1 s · attempt 2")
        code, seen = terminal.end()
    assert code == 0
    assert untimed(screen(seen)).splitlines()[:4] == ["The tide", AGAIN, LINE, "The tide goes out."]


def test_so_does_its_reasoning(env: dict[str, str]) -> None:
    thinks = ScriptedAnswer(text="The tide.", reasoning=["let me", " think"])
    with Upstream(faults=[Fault("clean_end", "after_reasoning")], answer=thinks) as upstream:
        code, seen = run_on_terminal(upstream, "--after-output", "restart", env=env)
    assert code == 0
    assert untimed(screen(seen)).splitlines()[:7] == ["let me", "", AGAIN, LINE, "let me think", "", "The tide."]


def test_the_line_is_drawn_where_nothing_else_is_told(env: dict[str, str]) -> None:
    """Without it a reader would see one answer that says everything twice."""
    with Upstream(faults=[CUT], answer=ScriptedAnswer(text="The tide goes out.")) as upstream:
        options = ("--after-output", "restart", "--quiet", "--hold", "prelude")
        code, seen = run_on_terminal(upstream, *options, env=env)
    assert code == 0
    assert screen(seen).splitlines() == ["The tide", LINE, "The tide goes out."]


def test_what_was_cut_stays_if_no_other_answer_comes(env: dict[str, str]) -> None:
    refused = Fault("status", "before_headers", status=401)
    with Upstream(faults=[CUT, refused], answer=ScriptedAnswer(text="The tide goes out.")) as upstream:
        code, seen = run_on_terminal(upstream, "--after-output", "restart", env=env)
    lines = untimed(screen(seen)).splitlines()
    assert (code, lines[:2]) == (4, ["The tide", AGAIN])
    assert lines[2].startswith("unbroken: the answer was cut, and another answer did not come")
    assert len(lines) == 3


def test_events_in_a_terminal_say_that_it_begins_again(env: dict[str, str]) -> None:
    with Upstream(faults=[CUT], answer=ScriptedAnswer(text="The tide goes out.")) as upstream:
        options = ("--after-output", "restart", "--format", "jsonl", "--quiet")
        code, seen = run_on_terminal(upstream, *options, env=env)
    lines = [json.loads(line) for line in seen.splitlines()]
    assert code == 0
    assert [line["type"] for line in lines if line["type"] in ("restart", "restarted")] == ["restart", "restarted"]
    assert lines[-1]["restarts"] == [{"type": "restarted", "attempt": 2, "character": 8}]


def test_ctrl_c_in_the_answer_leaves_the_prompt_on_a_line_of_its_own(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("stall", "after_token")], answer=ScriptedAnswer(text="TOKEN-42 ok")) as upstream:
        with Terminal("run", "--base-url", upstream.url, "hi", env=env) as terminal:
            terminal.seen.wait_for("TOKEN-42")
            terminal.type("\x03")
            assert terminal.end() == (130, "TOKEN-42^C\n")
        assert upstream.wait_for(lambda: upstream.requests[0].gone, timeout=10)
