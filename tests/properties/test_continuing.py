"""A text that is continued after cuts is the model's, or a beginning of it and an error: for any text and any cut."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from properties.continuing import OVER_CHAT, SERVERS, Server, play
from unbroken.core.continuation.format import STYLES, Style
from unbroken.core.continuation.seam import OVERLAP
from unbroken.core.events import Reasoning
from unbroken.core.policy import HOLDS, Hold
from unbroken.errors import StreamCut
from unbroken.lab import Continuation, ScriptedAnswer
from unbroken.lab.continuing import Manner

CODE = "def f(x):\n    return x\n\n\ndef g(x):\n    return f(x)\n"
PROSE = "The tide goes out, and what it leaves is the smell of salt. Then it comes back in, and covers the stones.\n\n"
WORDS = st.text("ab \n", min_size=1, max_size=6) | st.text(min_size=1, max_size=4)
TOKENS = (
    st.lists(WORDS, min_size=1, max_size=40)
    | st.tuples(st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 12)).map(lambda drawn: drawn[0] * drawn[1])
    | st.sampled_from([CODE, PROSE, CODE * 3, PROSE * 2, "}\n" * 30, "0, " * 40]).map(
        lambda text: [text[at : at + 5] for at in range(0, len(text), 5)]
    )
)
CUTS = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4)
CHUNKS = st.lists(st.integers(16, 900), min_size=1, max_size=5)
MANNERS: st.SearchStrategy[Manner] = st.sampled_from(
    ["goes_on", "goes_on", "goes_on", "echoes", "overlaps", "begins_anew", "reasons", "refuses", "calls_a_tool"]
)
REASONING = st.just([]) | st.lists(WORDS, min_size=1, max_size=6)
STYLED: list[tuple[Style, Server]] = [*SERVERS.items(), ("assistant", OVER_CHAT)]
"""Styles and the servers that have them: llama.cpp, OpenRouter and Groq have Anthropic's, and its white space."""

NEEDED = {"echoes": OVERLAP, "overlaps": OVERLAP, "begins_anew": 2 * OVERLAP}
"""From how many characters on it can be told that a server does not simply go on."""


@given(TOKENS, CUTS, CHUNKS, st.sampled_from(STYLED), MANNERS, st.integers(0, 4))
@example([PROSE], [0.9], [4096], ("assistant", SERVERS["assistant"]), "goes_on", 3)
def test_the_caller_has_the_models_text_or_a_beginning_of_it_and_an_error(
    tokens: list[str], cuts: list[float], chunks: list[int], styled: tuple[Style, Server], manner: Manner, replays: int
) -> None:
    answer, text = ScriptedAnswer(text=tokens), "".join(tokens)
    style, dialect = styled
    takes_space = dialect is not SERVERS["assistant"]
    server = Continuation(style, manner, prompt="Once upon a time", takes_space=takes_space)
    played = play(answer, server, list(cuts), style=style, dialect=dialect, chunks=chunks, replays=replays)
    seams = [seam.character for seam in played.report.seams]
    assume(all(at >= NEEDED.get(manner, 0) for at in seams))
    # A model that repeats all of its text, once, cannot be told from a server that repeats it.
    assume(not any(at >= OVERLAP and text[at:].startswith(text[:at]) for at in seams))
    assert len(played.bodies) <= 1 + replays
    if played.error is None:
        assert played.text == text or (manner == "calls_a_tool" and text.startswith(played.text))
    else:
        assert type(played.error) is StreamCut
        assert text.startswith(played.text)
    documents = played.documents
    assert len({document["id"] for document in documents if "id" in document}) <= 1
    assert sum(document.get("type") == "message_start" for document in documents) <= 1
    begun = [document["index"] for document in documents if document.get("type") == "content_block_start"]
    ended = [document["index"] for document in documents if document.get("type") == "content_block_stop"]
    assert begun == list(range(len(begun)))
    assert ended == begun[: len(ended)]
    assert played.error or ended == begun
    assert (len(played.tool_calls) <= 1) if manner == "calls_a_tool" else not played.tool_calls


@given(TOKENS, REASONING, CUTS, CHUNKS, st.sampled_from(STYLED), st.sampled_from(HOLDS), st.integers(0, 4))
def test_what_is_held_is_replayed_and_what_was_handed_on_is_continued(
    tokens: list[str],
    reasoning: list[str],
    cuts: list[float],
    chunks: list[int],
    styled: tuple[Style, Server],
    hold: Hold,
    replays: int,
) -> None:
    answer, text, thought = ScriptedAnswer(text=tokens, reasoning=reasoning), "".join(tokens), "".join(reasoning)
    style, dialect = styled
    server = Continuation(style, prompt="Once upon a time", takes_space=dialect is not SERVERS["assistant"])
    played = play(answer, server, list(cuts), style=style, dialect=dialect, chunks=chunks, replays=replays, hold=hold)
    seams = [seam.character for seam in played.report.seams]
    assume(not any(at >= OVERLAP and text[at:].startswith(text[:at]) for at in seams))
    assert len(played.bodies) <= 1 + replays
    assert hold != "answer" or not seams
    thoughts = "".join(event.text for event in played.typed(Reasoning))
    if played.error is None:
        assert (played.text, thoughts) == (text, thought)
    else:
        assert type(played.error) is StreamCut
        assert text.startswith(played.text)
        assert thought.startswith(thoughts)
        assert hold == "prelude" or not played.received or thoughts == thought
    assert len({document["id"] for document in played.documents if "id" in document}) <= 1


@given(TOKENS, CUTS, CHUNKS)
def test_white_space_that_was_held_back_must_come_again(
    tokens: list[str], cuts: list[float], chunks: list[int]
) -> None:
    answer, text = ScriptedAnswer(text=tokens), "".join(tokens)
    server = Continuation("assistant", "drops_space", takes_space=False)
    played = play(answer, server, list(cuts), chunks=chunks)
    # Where none was held back, a model that begins without it cannot be told from one that goes on differently.
    seams = [seam.character for seam in played.report.seams]
    assume(not any(text[at : at + 1].isspace() and not text[at - 1 : at].isspace() for at in seams))
    assert played.text == text if played.error is None else text.startswith(played.text)


@given(TOKENS, CUTS, CHUNKS)
def test_a_server_that_is_known_to_echo_may_repeat_any_text(
    tokens: list[str], cuts: list[float], chunks: list[int]
) -> None:
    server = Continuation("prefix", "echoes")
    played = play(
        ScriptedAnswer(text=tokens),
        server,
        list(cuts),
        style=None,
        chunks=chunks,
        host="https://api.mistral.ai",
        dialect=SERVERS["prefix"],
    )
    assert "".join(tokens).startswith(played.text)
    assert played.error or played.text == "".join(tokens)


@given(TOKENS, CHUNKS, st.sampled_from(STYLES))
def test_an_answer_that_is_not_cut_is_handed_on_byte_for_byte(
    tokens: list[str], chunks: list[int], style: Style
) -> None:
    answer, server = ScriptedAnswer(text=tokens), Continuation(style)
    one = play(answer, server, [], style=style, chunks=chunks)
    other = play(answer, server, [], style=style, chunks=chunks, after_output="raise")
    assert one.received == other.received
    assert one.error is other.error is None
