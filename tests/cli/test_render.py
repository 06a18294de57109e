"""What is shown of single events, without a server."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from unbroken.cli import prompt
from unbroken.cli.json_output import JsonLinesRenderer, JsonRenderer, encoded
from unbroken.cli.live import LiveLine
from unbroken.cli.prompt import as_text
from unbroken.cli.render import TextRenderer
from unbroken.cli.terminal import harmless
from unbroken.core.answer import Answer
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.events import Reasoning, Refusal, Text, TypedEvent
from unbroken.core.failures import Phase
from unbroken.core.report import Progress, Report
from unbroken.errors import StreamCut, UsageError

HALVES = ("\ud83d", "\ude00")


def waits(phase: Phase, attempt: int = 1, **known: Any) -> Progress:
    return Progress(phase=phase, attempt=attempt, **{"sent": True, **known})


@dataclass
class Turn:
    """As much of a turn as a renderer looks at."""

    answer: Answer = field(default_factory=lambda: Answer(OPENAI_CHAT, OPENAI_CHAT.decoder()))
    progress: Progress = field(default_factory=lambda: waits(Phase.HEADERS))
    report: Report = field(default_factory=Report)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.answer, name)


def show(kind: Any, *events: TypedEvent, end: str = "finished", **options: bool) -> None:
    settings = {"quiet": True, "verbose": False, "shows_reasoning": False} | options
    renderer, turn = kind(**settings), Turn()
    for event in events:
        turn.answer.add(event)
        renderer.event(event)
    if end == "failed":
        renderer.failed(StreamCut("cut", phase=Phase.OUTPUT, retryable=True), turn)
    else:
        getattr(renderer, end)(turn)


def test_the_answer_ends_its_last_line(capfd: pytest.CaptureFixture[str]) -> None:
    show(TextRenderer, Text("a"), Text("b"))
    show(TextRenderer, Text("a\n"))
    show(TextRenderer)
    assert capfd.readouterr().out == "ab\na\n"


def test_other_choices_are_not_mixed_in(capfd: pytest.CaptureFixture[str]) -> None:
    show(TextRenderer, Text("a", 0), Text("b", 1), Refusal("c", 0))
    assert capfd.readouterr().out == "ac\n"


def test_reasoning_stands_on_lines_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    show(TextRenderer, Reasoning("hm"), Text("a"), Reasoning("hm\n"), Text("b"), shows_reasoning=True)
    out, err = capfd.readouterr()
    assert out == "ab\n"
    assert err == "hm\n\nhm\n\n"


def test_what_had_come_stays_when_the_turn_fails(capfd: pytest.CaptureFixture[str]) -> None:
    show(TextRenderer, Text("half an"), end="failed")
    assert capfd.readouterr() == ("half an\n", "unbroken: cut\n")


def test_half_a_surrogate_pair_is_shown_as_an_escape(capfd: pytest.CaptureFixture[str]) -> None:
    show(TextRenderer, *map(Text, HALVES))
    assert capfd.readouterr().out == "\\ud83d\\ude00\n"


def test_two_halves_of_a_surrogate_pair_are_whole_again_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    show(JsonRenderer, *map(Text, HALVES))
    assert json.loads(capfd.readouterr().out)["text"] == "😀"


def test_every_line_of_jsonl_is_json_whatever_it_holds(capfd: pytest.CaptureFixture[str]) -> None:
    show(JsonLinesRenderer, Text(HALVES[0]), Text("\x00\n\u2028\x85"), end="failed")
    lines = capfd.readouterr().out.removesuffix("\n").split("\n")
    assert [json.loads(line)["type"] for line in lines] == ["text", "text", "failed"]


@pytest.mark.parametrize(("kind", "types"), [(JsonRenderer, [None]), (JsonLinesRenderer, ["text", "failed"])])
def test_an_interrupted_turn_keeps_what_had_come(
    kind: Any, types: list[str | None], capfd: pytest.CaptureFixture[str]
) -> None:
    show(kind, Text("half an"), end="interrupted")
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line.get("type") for line in lines] == types
    assert lines[0]["text"] == "half an"
    assert lines[-1].get("error", lines[-1])["code"] == "cancelled"


def test_json_is_one_line_of_utf8() -> None:
    assert encoded({"a": "Grüße\n"}) == '{"a":"Grüße\\n"}\n'.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\r", "a\nb"),
        ("\x1b[31m\x07\x9b\x7f\x00", "�[31m����"),
        ("Grüße 😀 שלום", "Grüße 😀 שלום"),
    ],
)
def test_control_characters_are_made_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (waits(Phase.CONNECT, sent=False), "connecting to deepseek · 12 s"),
        (waits(Phase.CONNECT, 2, sent=False), "connecting to deepseek · 12 s · attempt 2"),
        (waits(Phase.HEADERS), "waiting for deepseek to speak · 12 s"),
        (waits(Phase.PRELUDE, silent=7.2), "waiting for deepseek to speak · 12 s · silent for 7 s"),
        (waits(Phase.PRELUDE, 3, round_trip=0.0214, silent=7),
         "waiting for deepseek to speak · 12 s · attempt 3 · the nearest hop answers in 21 ms"),
        (waits(Phase.PRELUDE, round_trip=0.021, unanswered=12.4),
         "waiting for deepseek to speak · 12 s · no answer from the path for 12 s, still waiting"),
        (waits(Phase.PRELUDE, unanswered=22.4, suspicion="no answer for 22 s, waiting for the network"),
         "waiting for deepseek to speak · 12 s · no answer for 22 s, waiting for the network"),
        (waits(Phase.OUTPUT, round_trip=0.021, unanswered=1.0),
         "deepseek is answering · 12 s · the nearest hop answers in 21 ms"),
        (waits(Phase.HEADERS, 2, round_trip=0.021, lowered_ping=1.0011),
         "waiting for deepseek to speak · 12 s · attempt 2 · the nearest hop answers in 21 ms, pinged every 1 s"),
        (waits(Phase.OUTPUT), "deepseek is answering · 12 s"),
    ],
)  # fmt: skip
def test_the_live_line_says_what_is_waited_for(progress: Progress, said: str) -> None:
    line = LiveLine(Turn(progress=progress), "deepseek")  # type: ignore[arg-type]
    assert line.text(line._started + 12)[2:] == said


def test_an_argument_that_the_locale_could_not_decode_may_be_utf8_all_the_same() -> None:
    assert as_text("the prompt", os.fsencode("Grüße").decode("ascii", "surrogateescape")) == "Grüße"


def test_an_argument_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="the prompt is not UTF-8 text"):
        as_text("the prompt", "\udcff")


def test_stdin_without_a_terminal_needs_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert prompt.read_prompt("hi") == "hi"
    with pytest.raises(UsageError, match="no prompt"):
        prompt.read_prompt(None)
