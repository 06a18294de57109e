"""A stream that is taken up after cuts is the uncut one, byte for byte, or a beginning of it and an error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from properties.resuming import google, play
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.errors import StreamCut
from unbroken.lab import Background, ScriptedAnswer

WORDS = st.lists(st.text("ab \n\r{}:", max_size=5) | st.text(min_size=1, max_size=3), min_size=1, max_size=8)
ANSWERS = st.builds(
    ScriptedAnswer,
    text=WORDS,
    reasoning=st.lists(st.text(min_size=1, max_size=4), max_size=3),
    tool_calls=st.lists(st.tuples(st.just("call_1"), st.just("look"), st.just(['{"at":', " 1}"])), max_size=1),
)
CUTS = st.lists(st.floats(0.0, 0.999), max_size=12)
CHUNKS = st.lists(st.integers(1, 900), min_size=1, max_size=5)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(ANSWERS, CUTS, CHUNKS, LINE_ENDS, st.sampled_from(HOLDS), st.integers(1, 4))
def test_the_bytes_are_those_of_the_uncut_stream(
    answer: ScriptedAnswer, cuts: list[float], chunks: list[int], line_end: bytes, hold: Hold, resumes: int
) -> None:
    policy = Policy(hold=hold, resumes=resumes)
    played = play(answer, list(cuts), chunks=chunks, line_end=line_end, policy=policy)
    assert sum(request.method == "POST" for request in played.requests) == 1
    positions = [attempt.resumes for attempt in played.report.attempts if attempt.resumes is not None]
    assert all(positions.count(position) <= resumes for position in positions)
    if played.error is None:
        assert played.received == played.uncut
    else:
        assert type(played.error) is StreamCut
        assert played.uncut.startswith(played.received)
        assert len(played.requests) <= len(cuts)


@given(ANSWERS, CUTS, CHUNKS, st.integers(0, 30), st.sampled_from(["skips", "repeats", "swaps"]))
def test_a_server_that_does_not_go_on_exactly_is_never_passed_off_as_one_that_does(
    answer: ScriptedAnswer, cuts: list[float], chunks: list[int], at: int, how: str
) -> None:
    def rest(events: list[bytes], after: int) -> list[bytes]:
        if at >= len(events) - 1:
            return events[after + 1 :]
        change = {"skips": [], "repeats": [events[at]] * 2, "swaps": [events[at + 1], events[at]]}[how]
        span = 2 if how == "swaps" else 1
        return [*events[:at], *change, *events[at + span :]][after + 1 :] if at > after else events[after + 1 :]

    played = play(answer, list(cuts), chunks=chunks, rest=rest)
    if played.error is None:
        assert played.received == played.uncut
    else:
        assert played.uncut.startswith(played.received)


@given(ANSWERS, st.lists(st.floats(0.0, 0.999) | st.sampled_from([404, 503, 400]), max_size=8), CHUNKS)
def test_refusals_in_between(answer: ScriptedAnswer, cuts: list[float | int], chunks: list[int]) -> None:
    played = play(answer, list(cuts), chunks=chunks, policy=Policy(retries=3, replay_side_effects=True))
    generations = sum(request.method == "POST" for request in played.requests)
    assert generations <= 1 + played.report.replays + played.report.retries
    assert played.report.replays <= 3
    if played.error is None:
        assert played.received in (played.uncut, b'{"error": {"message": "no"}}')
    else:
        assert played.uncut.startswith(played.received)


@given(ANSWERS, CHUNKS, LINE_ENDS)
def test_a_stream_that_is_not_cut_is_handed_on_as_without_background(
    answer: ScriptedAnswer, chunks: list[int], line_end: bytes
) -> None:
    one = play(answer, [], chunks=chunks, line_end=line_end)
    other = play(answer, [], chunks=chunks, line_end=line_end, background=False)
    assert one.received == other.received == one.uncut


IDS = st.builds(Background, ids=st.sampled_from(["deltas", "all", "some", "none"]))


@given(ANSWERS, CUTS, CHUNKS, LINE_ENDS, st.sampled_from(HOLDS), IDS)
def test_an_interaction_is_the_uncut_one_or_a_beginning_of_it(
    answer: ScriptedAnswer, cuts: list[float], chunks: list[int], line_end: bytes, hold: Hold, background: Background
) -> None:
    policy = Policy(hold=hold, resumes=3)
    server = google(background)
    played = play(answer, list(cuts), chunks=chunks, line_end=line_end, policy=policy, server=server)
    assert sum(request.method == "POST" for request in played.requests) == 1
    if played.error is None:
        assert played.received == played.uncut
    else:
        assert type(played.error) is StreamCut
        assert played.uncut.startswith(played.received)
    if background.ids == "all" and not cuts:
        assert played.error is None
