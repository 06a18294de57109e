"""Text that is safe to show on a terminal: controls, directions, and what nobody sees."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.cli.terminal import HarmlessText, harmless

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
