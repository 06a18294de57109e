"""The seam between a text and its continuation, against a naive notion of it, for texts that repeat themselves too."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from unbroken.core.continuation.seam import OVERLAP, Seam, SeamState

JOINED, BROKEN, OPEN = SeamState.JOINED, SeamState.BROKEN, SeamState.OPEN
LONG = "The tide goes out, and what it leaves is the smell of salt."
CODE = "def f(x):\n    return x\n\n\ndef g(x):\n    return f(x)\n"

TEXTS = (
    st.text("ab", min_size=1, max_size=90)
    | st.tuples(st.text("ab", min_size=1, max_size=40), st.integers(1, 4)).map(lambda drawn: drawn[0] * drawn[1])
    | st.text(min_size=1, max_size=60)
    | st.sampled_from([LONG, CODE, CODE * 3, "0, " * 30, "}\n" * 20, LONG + "\n" + LONG])
)


def judged(text: str, continuation: str, held_back: str = "", *, echoes: bool = False, size: int = 1) -> Seam:
    seam = Seam(text, held_back, echoes=echoes)
    for start in range(0, len(continuation), size):
        seam.feed(continuation[start : start + size])
    seam.end()
    return seam


def repeats_itself(text: str) -> bool:
    """Some period of at most half of the text."""
    return any(text[period:] == text[:-period] for period in range(1, len(text) // 2 + 1))


def expected(text: str, continuation: str, *, echoes: bool) -> tuple[SeamState, int]:
    """The verdict by its definition: no index, no search, no state."""
    overlaps_end = any(
        continuation.startswith(text[-size:]) for size in range(OVERLAP, min(len(text), len(continuation) + 1))
    )
    if continuation.startswith(text) and echoes:
        return JOINED, len(text)
    if overlaps_end:
        return BROKEN, 0
    if continuation.startswith(text) and len(text) >= OVERLAP:
        return (BROKEN, 0) if repeats_itself(text) else (JOINED, len(text))
    begins_anew = continuation[:OVERLAP] == text[:OVERLAP] and len(continuation[:OVERLAP]) == OVERLAP < len(text)
    return (BROKEN, 0) if begins_anew else (JOINED, 0)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and a continuation that is likely to repeat a part of it."""
    text = draw(TEXTS)
    start, size = draw(st.integers(0, len(text))), draw(st.integers(0, 80))
    piece = draw(st.sampled_from(["", text, text[start:], text[start : start + size], text[:size], text * 2]))
    return text, piece + draw(TEXTS | st.just(""))


@given(pairs(), st.booleans(), st.integers(1, 50))
@example(("ab" * 20, "ab" * 30), False, 1)
@example(("a" * 31, "a" * 62), False, 3)
@example((LONG, LONG + " More."), False, 7)
def test_the_verdict_is_that_of_the_definition(pair: tuple[str, str], echoes: bool, size: int) -> None:
    text, continuation = pair
    seam = judged(text, continuation, echoes=echoes, size=size)
    assert (seam.state, seam.drop if seam.state is JOINED else 0) == expected(text, continuation, echoes=echoes)
    assert bool(seam.problem) is (seam.state is BROKEN)


@given(pairs(), st.booleans(), st.integers(1, 50), st.sampled_from(["", " ", "\n", " \n\n"]))
def test_the_verdict_is_the_same_for_any_chunks(pair: tuple[str, str], echoes: bool, size: int, held_back: str) -> None:
    text, continuation = pair
    text += held_back
    one, other = (judged(text, continuation, held_back, echoes=echoes, size=chunk) for chunk in (1, size))
    assert (one.state, one.drop, one.problem) == (other.state, other.drop, other.problem)


@given(TEXTS, TEXTS, st.sampled_from([" ", "\n", " \n\n", "\t"]))
def test_white_space_that_was_held_back_must_come_again(text: str, rest: str, held_back: str) -> None:
    text = text.rstrip()
    assume(text)
    seam = judged(text + held_back, held_back + rest, held_back)
    assert seam.state is BROKEN or (held_back + rest)[seam.drop :] == rest or seam.drop > len(text)
    other = judged(text + held_back, "x" + rest, held_back)
    assert other.state is BROKEN or ("x" + rest).startswith(text + held_back)


@pytest.mark.parametrize(
    ("text", "continuation"),
    [("Hello", " world"), ("ha ", "ha ha"), ("}\n" * 12, "}\n" * 12), ("0, " * 9, "0, " * 9), (LONG, " " + LONG[:20])],
)
def test_text_that_repeats_itself_a_little_is_the_models(text: str, continuation: str) -> None:
    seam = judged(text, continuation)
    assert (seam.state, seam.drop) == (JOINED, 0)


@pytest.mark.parametrize(
    ("continuation", "why"),
    [
        (LONG[-OVERLAP:] + " More.", "repeats the end"),
        (LONG[:OVERLAP] + " otherwise.", "begins anew"),
        (LONG[:OVERLAP], "begins anew"),
        (LONG[-OVERLAP:], "repeats the end"),
    ],
)
def test_an_overlap_breaks_the_seam(continuation: str, why: str) -> None:
    seam = judged(LONG, continuation)
    assert seam.state is BROKEN
    assert why in seam.problem


@pytest.mark.parametrize("continuation", [LONG[-OVERLAP + 1 :] + " More.", LONG[: OVERLAP - 1] + "X"])
def test_a_character_less_does_not(continuation: str) -> None:
    assert judged(LONG, continuation).state is JOINED


def test_how_long_an_overlap_is() -> None:
    assert judged("x" + "0123456789" * 4, "89" + "0123456789" * 3 + ".").state is BROKEN
    assert judged("x" + "0123456789" * 4, "9" + "0123456789" * 3 + ".").state is JOINED


def test_a_short_repetition_of_the_whole_is_dropped_where_the_server_echoes() -> None:
    assert judged("Hi", "Hi there", echoes=True).drop == 2
    assert judged("Hi", "Hi there").drop == 0


def test_nothing_is_held_longer_than_it_must() -> None:
    seam = Seam(LONG)
    seam.feed("T")
    assert seam.state is OPEN
    seam.feed("h")
    assert seam.state is OPEN
    seam.feed("at")
    assert (seam.state, seam.drop) == (JOINED, 0)


def test_an_end_of_the_answer_at_the_seam_is_fine() -> None:
    assert judged(LONG, "").state is JOINED
    assert judged("Hello ", "", " ").state is JOINED


def test_a_repetition_of_a_long_text_is_found_in_time() -> None:
    """A character costs about the same, however long the text: an echo of 200 KB takes no minute."""
    text = "".join(f"{number} and " for number in range(20_000))
    seam = judged(text, text + "more", size=1000)
    assert (seam.state, seam.drop) == (JOINED, len(text))
