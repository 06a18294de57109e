"""An answer that begins again after cuts is one attempt's, or a beginning of one and an error: for any text and cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from choices import WIRES, Wire
from properties.continuing import body_of, play
from properties.test_continuing import CHUNKS, CUTS, TOKENS, WORDS
from unbroken.core.events import Restarted, Text, TypedEvent
from unbroken.core.policy import HOLDS, Hold
from unbroken.errors import StreamCut
from unbroken.lab import Continuation, ScriptedAnswer

REASONING = st.just([]) | st.lists(WORDS, min_size=1, max_size=6)


@given(
    TOKENS, REASONING, CUTS, CHUNKS, st.sampled_from(list(WIRES.values())), st.sampled_from(HOLDS), st.integers(0, 4)
)
def test_the_text_is_that_of_one_attempt_or_a_beginning_of_it_and_an_error(
    tokens: list[str],
    reasoning: list[str],
    cuts: list[float | None],
    chunks: list[int],
    wire: Wire,
    hold: Hold,
    replays: int,
) -> None:
    answer, text, thought = ScriptedAnswer(text=tokens, reasoning=reasoning), "".join(tokens), "".join(reasoning)
    played = play(
        answer,
        Continuation(),
        cuts,
        style=None,
        chunks=chunks,
        dialect=(wire.server, wire.path, wire.body),
        after_output="restart",
        hold=hold,
        replays=replays,
    )
    said, report = played.reader.answer, played.report
    assert len(played.bodies) == len(report.attempts) <= 1 + replays
    assert len({str(body) for body in played.bodies}) == 1
    last = body_of(wire.server.pieces(answer, len(played.bodies)))
    if played.error is None:
        assert (said.text, said.reasoning) == (text, thought)
        assert last.startswith(played.received)
    else:
        assert type(played.error) is StreamCut
        assert text.startswith(said.text)
        assert thought.startswith(said.reasoning)
    told = [event for event in played.typed_events if isinstance(event, Restarted)]
    assert told == list(report.restarts)
    assert hold != "answer" or told == []
    attempts = _attempts(played.typed_events)
    assert [len(one) for one in attempts[:-1]] == [event.character for event in told]
    assert all(text.startswith(one) for one in attempts)
    assert attempts[-1] == said.text


def _attempts(events: list[TypedEvent]) -> list[str]:
    """The text of each attempt that the caller has seen something of."""
    texts = [""]
    for event in events:
        if isinstance(event, Restarted):
            texts.append("")
        elif isinstance(event, Text):
            texts[-1] += event.text
    return texts
