"""Every recorded stream and refusal of every dialect: what it means, whether it is whole, and what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from core.corpus import Recording, recordings
from core.dialects.replaying import CUTS, UNREMARKABLE, Collected, attempted, blocks, is_settled, labelled, rewritten
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.dialect import Call, Dialect
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.interactions import INTERACTIONS
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.events import Failed
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.sse import Parser


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The recordings of one dialect.

    Attributes:
        dialect: the dialect.
        path: of the requests that they answer, where they do not say another one.
        notable: what of a stream the pattern may match although the rule passes over it, because it looks like an
            ending or an error from afar; by recording, block, label and call.
    """

    dialect: Dialect
    path: str
    notable: Callable[[Recording, bytes, str, Call], bool]

    @property
    def folder(self) -> str:
        return self.dialect.name.replace("-", "_")

    def call(self, recording: Recording) -> Call:
        return recording.call(self.dialect, recording.facts.get("url", f"https://api.example.com{self.path}"))


CORPORA = (
    Corpus(
        OPENAI_CHAT,
        "/v1/chat/completions",
        lambda recording, block, label, call: (
            label == "silent"
            or call.generation.choices > 1
            or b"tool_calls" in block
            or recording.name.startswith("vllm-error")
        ),
    ),
    Corpus(OPENAI_COMPLETIONS, "/v1/completions", lambda recording, block, label, call: call.generation.choices > 1),
    Corpus(
        OPENAI_RESPONSES,
        "/v1/responses",
        lambda recording, block, label, call: recording.name == "openai-mcp-tool-failed",  # whose tool has an error
    ),
    Corpus(ANTHROPIC_MESSAGES, "/v1/messages", lambda recording, block, label, call: False),
    Corpus(
        GEMINI,
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        lambda recording, block, label, call: recording.name.startswith(
            ("gemini-candidates", "gemini-finish-unspecified", "gemini-empty-after-finish", "gateway-premature")
        ),
    ),
    Corpus(
        INTERACTIONS,
        "/v1beta/interactions",
        lambda recording, block, label, call: (
            recording.name in ("interactions-error-empty", "interactions-failed-step")
            or b"code_execution_call" in block
        ),
    ),
)
STREAMS = [
    pytest.param(corpus, recording, id=f"{corpus.dialect.name}-{recording}")
    for corpus in CORPORA
    for recording in recordings(corpus.folder)
]
REFUSALS = [
    pytest.param(corpus, recording, id=f"{corpus.dialect.name}-{recording}")
    for corpus in CORPORA
    for recording in recordings(f"{corpus.folder}_refused", "body")
]


@pytest.mark.parametrize(("corpus", "recording"), STREAMS)
def test_a_recorded_stream(corpus: Corpus, recording: Recording) -> None:
    """However it is cut into pieces."""
    call = corpus.call(recording)
    for name, cut in CUTS.items():
        assert labelled(corpus.dialect, call, cut(recording)) == recording.labels, name
        attempt, given = attempted(call, cut(recording))
        assert is_settled(attempt) is recording.expect["complete"], name
        assert given == recording.body or not recording.expect["complete"], name
        Collected(corpus.dialect, cut(recording), with_rest=recording.facts.get("rest", False)).check(recording.expect)


@pytest.mark.parametrize(("corpus", "recording"), STREAMS)
def test_nothing_of_it_is_given_on_before_its_first_output(corpus: Corpus, recording: Recording) -> None:
    attempt = Attempt(1, corpus.call(recording), Policy(), 0.0)
    attempt.open(Head(200, ((b"content-type", b"text/event-stream"),)), Mode.STREAM)
    for block, label in blocks(recording):
        given = attempt.data(block)
        if {"reasoning", "output", "ends", "error:transient", "error:permanent"}.intersection(label.split("+")):
            assert given or attempt.failure
            return
        assert not given
    assert attempt.phase is Phase.PRELUDE


@pytest.mark.parametrize(("corpus", "recording"), STREAMS)
def test_the_notable_pattern(corpus: Corpus, recording: Recording) -> None:
    """After the first output only blocks in which it matches are parsed. None that settles, ends or is an error may be
    missed, however its JSON is written; and it is to pass over what models say."""
    notable, call = corpus.dialect.notable, corpus.call(recording)
    for block, label in blocks(recording):
        if label in UNREMARKABLE:
            assert not notable.search(block) or corpus.notable(recording, block, label, call), block
        else:
            assert notable.search(block), (label, block)
            written = [] if b"[DONE]" in block else rewritten(block)
            assert all(notable.search(other) for other in written), (label, block)


@pytest.mark.parametrize(("corpus", "recording"), STREAMS)
def test_an_error_is_the_last_of_what_an_event_says(corpus: Corpus, recording: Recording) -> None:
    """A reader stops at it: the usage in the same event would be lost."""
    decoder, parser = corpus.dialect.decoder(), Parser()
    for event in parser.feed(recording.body):
        said = [] if event.is_bare else decoder.decode(event)
        assert not any(isinstance(piece, Failed) for piece in said[:-1])


@pytest.mark.parametrize(("corpus", "recording"), REFUSALS)
def test_a_recorded_refusal(corpus: Corpus, recording: Recording) -> None:
    refusal = corpus.dialect.read_error(recording.facts["status"], recording.body)
    assert refusal.transient is (recording.facts["means"] == "transient")
    assert refusal.retry_after == recording.facts.get("retry_after")
    assert (refusal.message, refusal.kind) == (recording.facts["message"], recording.facts["kind"])
