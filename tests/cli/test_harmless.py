"""Text that is safe to show on a terminal: controls, directions, and what nobody sees."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.programs import run
from cli.terminals import Terminal
from unbroken.cli.terminal import HarmlessText, harmless
from unbroken.lab import Fault, ScriptedAnswer, Upstream

ZWNJ, ZWJ = "\u200c", "\u200d"


def characters(*ranges: tuple[int, int]) -> list[str]:
    return [chr(code) for first, last in ranges for code in range(first, last + 1)]


DIRECTIONS = characters((0x202A, 0x202E), (0x2066, 0x206F), (0x61C, 0x61C))
HIDDEN = characters((0x200B, 0x200B), (0x2060, 0x2065), (0xFEFF, 0xFEFF), (0x180E, 0x180E), (0xFFF9, 0xFFFB))
HIDDEN += characters((0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A))
TAGS = characters((0xE0000, 0xE007F))
LINES = ["\u2028", "\u2029"]
CONTROLS = [char for char in characters((0, 0x1F), (0x7F, 0x9F)) if char not in "\n\t\r"]
REPLACED = CONTROLS + DIRECTIONS + HIDDEN + TAGS + LINES


@pytest.mark.parametrize("char", REPLACED, ids=lambda char: f"U+{ord(char):04X}")
def test_a_character_that_is_replaced(char: str) -> None:
    assert harmless(f"pay{char}pal") == "pay\ufffdpal"


@pytest.mark.parametrize("char", ["\r", "\u200e", "\u200f"], ids=lambda char: f"U+{ord(char):04X}")
def test_a_character_that_is_dropped(char: str) -> None:
    assert harmless(f"a{char}\nb") == "a\nb"


KEPT = {
    "a family": "👨\u200d👩\u200d👧\u200d👦",
    "a flag": "🏳\ufe0f\u200d🌈",
    "a health worker with a skin tone": "👩🏽\u200d⚕\ufe0f",
    "a heart on fire": "❤\ufe0f\u200d🔥",
    "a polar bear": "🐻\u200d❄\ufe0f",
    "Persian": "می\u200cخواهم",
    "a Persian plural": "کتاب\u200cها",
    "a Persian abbreviation": "۱۴۰۲ ه\u200d.ش",
    "an Arabic letter alone in its final form": "\u200dه",
    "Hindi": "क्\u200dष और र्\u200dय",
    "half a letter of Hindi": "क्\u200d",
    "Bengali": "র\u200d্যাব",
    "Malayalam": "അവന്\u200d",
    "Sinhala": "ශ්\u200dරී",
    "German without a ligature": "Auf\u200clage",
    "Kurdish": "نه\u200cوە",
    "tabs and lines": "a\tb\nc\n",
    "text of every kind": "Grüße, Ωμέγα, 日本語, 한국어, עברית, ไทย, 𝒳, e\u0301, ½, €, …, 10\u00a0km, soft\u00adhyphen",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_text_that_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_it_stays_in_pieces_too(text: str) -> None:
    for size in (1, 2, 3):
        shown = HarmlessText()
        pieces = [shown.add(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(pieces) + shown.add("", last=True) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ZWJ, "\ufffd"),
        (f" {ZWJ} ", " \ufffd "),
        (f"a {ZWNJ}b", "a \ufffdb"),
        (f"a{ZWJ}1", "a\ufffd1"),
        (f"1{ZWNJ}2", "1\ufffd2"),
        (f"a{ZWJ}{ZWJ}b", "a\ufffd\ufffdb"),
        (f"می{ZWNJ}{ZWJ}{ZWNJ}خ", "می\ufffd\ufffd\ufffdخ"),
        (f"a{ZWJ}\n", "a\ufffd\n"),
        (f"a\x1b{ZWJ}b", "a\ufffd\ufffdb"),
    ],
    ids=ascii,
)
def test_a_joiner_that_joins_nothing(text: str, shown: str) -> None:
    assert harmless(text) == shown
    pieces = HarmlessText()
    assert "".join(map(pieces.add, text)) + pieces.add("", last=True) == shown


NASTY = st.text(st.sampled_from([*"aب \n\r👨1", ZWJ, ZWNJ, "\u202e", "\u200f", "\x1b", "\U000e0041", "\ud83d"]))


@given(st.lists(NASTY))
def test_pieces_are_as_harmless_as_the_whole(pieces: list[str]) -> None:
    shown = HarmlessText()
    assert "".join(map(shown.add, pieces)) + shown.add("", last=True) == harmless("".join(pieces))


SEEN = characters((0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x110BD, 0x110CD))
SEEN += [*characters((0x13430, 0x1343F)), "\u00ad", "\n", "\t"]
"""Characters of the same categories that are seen: signs before numbers, the quadrats of hieroglyphs, soft hyphens."""


def test_every_control_of_unicode_is_treated() -> None:
    for code in range(0x110000):
        char = chr(code)
        if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char not in SEEN:
            assert char not in harmless(f"1{char}2"), f"U+{code:04X}"


# With a terminal

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
