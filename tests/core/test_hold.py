"""What an attempt holds before it speaks, by :attr:`Policy.hold`: every dialect, every choice, every failure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from core.corpus import Recording
from core.dialects.replaying import attempted, blocks, is_settled
from core.dialects.test_recordings import STREAMS, Corpus
from core.playbook import (
    BROKEN,
    COMMENT,
    DONE,
    INVALID,
    OVERLOADED,
    ROLE,
    START,
    STOP,
    Playbook,
    again,
    answers,
    brings,
    delta,
    done,
    ends,
    fails,
    is_cancelled,
    is_lost,
    path,
    sends,
    speaks,
    tells,
    text,
    waits,
)
from unbroken.core.actions import EndTurn, Give, Notify, Read, Send
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects import DIALECTS, find_dialect
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.http import Head
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.core.sse import encode
from unbroken.core.suspicion import Suspected
from unbroken.core.turn import Turn
from unbroken.drivers.notices import describe
from unbroken.errors import CallerTimeout, FirstOutputTimeout, MalformedStream, StreamCut, UsageError

THOUGHT = delta(reasoning_content="Hm.")
EVENTS = Head(200, ((b"content-type", b"text/event-stream"),))


def stream(hold: Hold, dialect: str = "openai-chat", **policy: Any) -> Attempt:
    attempt = Attempt(1, Call(find_dialect(dialect), Generation(streaming=True)), Policy(hold=hold, **policy), 0.0)
    attempt.open(EVENTS, Mode.STREAM)
    return attempt


def speaks_with(hold: Hold, labels: list[str]) -> int | None:
    """The event with which an attempt speaks, by the corpus's labels; ``None``: with none, or only with the end."""
    spoken = reopened = proves_nothing = False
    for number, label in enumerate(labels):
        marks = set(label.split("+"))
        if label.startswith("error"):
            return number
        reopened = reopened or "reopens" in marks
        if "ends" in marks:
            return number
        if "settles" in marks:
            if spoken and not reopened and not proves_nothing:
                return number
            proves_nothing = True
        spoken = spoken or bool(marks & {"output", "reasoning"})
        if "output" in marks and hold != "answer":
            return number
        if "reasoning" in marks and hold == "prelude":
            return number
    return None


class TestEveryRecording:
    @pytest.mark.parametrize("hold", HOLDS)
    @pytest.mark.parametrize(("corpus", "recording"), STREAMS)
    def test_it_speaks_with_the_right_event(self, corpus: Corpus, recording: Recording, hold: Hold) -> None:
        attempt = Attempt(1, corpus.call(recording), Policy(hold=hold), 0.0)
        attempt.open(EVENTS, Mode.STREAM)
        first = speaks_with(hold, recording.labels)
        for number, (block, _) in enumerate(blocks(recording)):
            given = attempt.data(block)
            if number == first:
                assert given or attempt.failure
                return
            assert not given, number
        assert not attempt.has_spoken

    @pytest.mark.parametrize("hold", ["reasoning", "answer"])
    @pytest.mark.parametrize("size", [3, 1 << 20])
    @pytest.mark.parametrize(("corpus", "recording"), STREAMS)
    def test_the_bytes_are_the_same(self, corpus: Corpus, recording: Recording, size: int, hold: Hold) -> None:
        call, body = corpus.call(recording), recording.body
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        attempt, given = attempted(call, pieces, Policy(hold=hold))
        assert is_settled(attempt) is (recording.expect["complete"] and not attempt.failure)
        if is_settled(attempt):
            assert given == body
        elif hold == "answer" and speaks_with(hold, recording.labels) is None:
            assert given == b""
        assert body.startswith(given)


REASONING = {
    "openai-chat": [
        {"delta": {"reasoning_content": "Hm."}},
        {"delta": {"role": "assistant", "content": "", "reasoning": "Hm."}},
        {"delta": {"content": None, "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}},
        {"delta": {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}},
        {"delta": {"reasoning_text": "Hm.", "reasoning_opaque": "x"}},
        {"delta": {"cot_summary": "Hm.", "cot_id": "1"}},
        {"delta": {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}]}},
        {"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}},
        {"delta": {"content": "<thought>Hm.", "extra_content": {"google": {"thought": True}}}},
        {"delta": {"content": "", "extra_content": {"google": {"thought_signature": "x"}}}},
    ],
    "openai-completions": [
        {"text": "", "reasoning": "Hm."},
        {"text": "", "delta": {"reasoning_content": "Hm."}},
    ],
}
SPEECH = {
    "openai-chat": [
        {"delta": {"content": "Hi"}},
        {"delta": {"reasoning_content": "Hm.", "content": "Hi"}},
        {"delta": {"refusal": "No."}},
        {"delta": {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}},
        {"delta": {"function_call": {"name": "f", "arguments": ""}}},
        {"delta": {"audio": {"data": "x"}}},
        {"delta": {"an_unknown_field": "x"}},
        {"delta": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]}},
        {"delta": {"content": "Hi", "extra_content": {"google": {"thought_signature": "x"}}}},
        {"delta": {"extra_content": {"google": {"thought": True}}, "tool_calls": [{"id": "1"}]}},
    ],
    "openai-completions": [
        {"text": "Hi"},
        {"text": "Hi", "reasoning": "Hm."},
        {"text": "", "an_unknown_field": "x"},
    ],
}


def choice(**fields: Any) -> bytes:
    return encode(json.dumps({"choices": [{"index": 0, "finish_reason": None, **fields}]}))


def typed(kind: str, **fields: Any) -> bytes:
    return encode(json.dumps({"type": kind, **fields}), event=kind)


def parts(*said: dict[str, Any]) -> bytes:
    return encode(json.dumps({"candidates": [{"content": {"role": "model", "parts": list(said)}}]}))


def block(kind: str, **fields: Any) -> bytes:
    return typed("content_block_start", index=0, content_block={"type": kind, **fields})


def piece(kind: str, **fields: Any) -> bytes:
    return typed("content_block_delta", index=0, delta={"type": kind, **fields})


def happening(kind: str, **fields: Any) -> bytes:
    return encode(json.dumps({**fields, "event_type": kind}), event=kind)


def step_delta(kind: str, **fields: Any) -> bytes:
    return happening("step.delta", index=0, delta={"type": kind, **fields})


def item(event: str, kind: str, **fields: Any) -> bytes:
    return typed(f"response.output_item.{event}", output_index=0, item={"type": kind, "id": "1", **fields})


THOUGHTS = [
    *((name, choice(**said)) for name, fields in REASONING.items() for said in fields),
    ("anthropic-messages", block("thinking", thinking="Hm.", signature="")),
    ("anthropic-messages", block("redacted_thinking", data="x")),
    ("anthropic-messages", piece("thinking_delta", thinking="Hm.")),
    ("anthropic-messages", piece("signature_delta", signature="x")),
    ("openai-responses", typed("response.reasoning_text.delta", delta="Hm.")),
    ("openai-responses", typed("response.reasoning_text.done", text="Hm.")),
    ("openai-responses", typed("response.reasoning_summary_text.delta", delta="Hm.")),
    ("openai-responses", typed("response.reasoning_summary_part.done", part={"type": "summary_text", "text": "Hm."})),
    ("openai-responses", typed("response.reasoning.delta", delta={"text": "Hm."})),
    ("openai-responses", typed("response.content_part.added", part={"type": "reasoning_text", "text": "Hm."})),
    ("openai-responses", item("added", "reasoning", summary=[{"type": "summary_text", "text": "Hm."}])),
    ("openai-responses", item("done", "reasoning", summary=[], encrypted_content="x")),
    ("gemini", parts({"text": "Hm.", "thought": True})),
    ("gemini", parts({"text": "Hm.", "thought": True, "thoughtSignature": "x"})),
    ("gemini", parts({"text": "", "thoughtSignature": "x"})),
    ("interactions", happening("step.start", step={"type": "thought", "signature": "x"})),
    ("interactions", happening("step.start", step={"type": "thought", "summary": [{"type": "text", "text": "Hm."}]})),
    ("interactions", step_delta("thought_summary", content={"type": "text", "text": "Hm."})),
    ("interactions", step_delta("thought_signature", signature="x")),
    ("interactions", happening("content.delta", delta={"type": "thought_summary", "content": {"text": "Hm."}})),
]
WORDS = [
    *((name, choice(**said)) for name, fields in SPEECH.items() for said in fields),
    ("anthropic-messages", block("tool_use", id="1", name="f", input={})),
    ("anthropic-messages", block("server_tool_use", id="1", name="f", input={})),
    ("anthropic-messages", block("a_new_kind")),
    ("anthropic-messages", piece("text_delta", text="Hi")),
    ("anthropic-messages", piece("a_new_delta", of="something")),
    ("anthropic-messages", typed("a_new_event")),
    ("openai-responses", typed("response.output_text.delta", delta="Hi")),
    ("openai-responses", typed("response.refusal.delta", delta="No.")),
    ("openai-responses", typed("response.content_part.added", part={"type": "output_text", "text": "Hi"})),
    ("openai-responses", item("added", "function_call", name="f", arguments="")),
    ("openai-responses", item("done", "message", content=[])),
    ("openai-responses", typed("response.a_new_event", of="something")),
    ("gemini", parts({"text": "Hi"})),
    ("gemini", parts({"text": "Hm.", "thought": True}, {"text": "Hi"})),
    ("gemini", parts({"text": "Hi", "thoughtSignature": "x"})),
    ("gemini", parts({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "x"})),
    ("gemini", parts({"thought": True, "inlineData": {"data": "x"}})),
    ("interactions", step_delta("text", text="Hi")),
    ("interactions", step_delta("image", data="x")),
    ("interactions", step_delta("a_new_delta", of="something")),
    (
        "interactions",
        happening("step.start", step={"type": "model_output", "content": [{"type": "text", "text": "Hi"}]}),
    ),
    ("interactions", happening("step.start", step={"type": "function_call", "id": "1", "name": "f", "arguments": {}})),
    ("interactions", happening("step.start", step={"type": "google_search_call", "id": "1"})),
    ("interactions", happening("step.start", step={"type": "a_new_step"})),
    ("interactions", happening("a.new_event", of="something")),
    *((dialect.name, encode("words that are no JSON object: 1")[:6] + b"1\n\n") for dialect in DIALECTS),
]


def named(cases: list[tuple[str, bytes]]) -> list[Any]:
    return [pytest.param(name, said, id=f"{name}-{number}") for number, (name, said) in enumerate(cases)]


class TestReasoning:
    @pytest.mark.parametrize(("dialect", "thought"), named(THOUGHTS))
    def test_reasoning_is_held(self, dialect: str, thought: bytes) -> None:
        assert stream("prelude", dialect).data(thought) == thought
        attempt = stream("reasoning", dialect)
        assert attempt.data(thought) == b""
        assert (attempt.phase, attempt.shown_phase) == (Phase.OUTPUT, Phase.PRELUDE)

    @pytest.mark.parametrize(("dialect", "words"), named(WORDS))
    def test_anything_else_is_said(self, dialect: str, words: bytes) -> None:
        attempt = stream("reasoning", dialect)
        assert attempt.data(words) == words
        assert attempt.shown_phase is Phase.OUTPUT

    def test_one_choice_that_speaks_is_enough(self) -> None:
        both = encode(
            json.dumps(
                {"choices": [{"index": 0, "delta": {"reasoning": "Hm."}}, {"index": 1, "delta": {"content": "Hi"}}]}
            )
        )
        assert stream("reasoning").data(both) == both

    def test_an_event_that_cannot_be_read_may_be_anything(self) -> None:
        attempt = stream("reasoning")
        assert attempt.data(THOUGHT) == b""
        assert attempt.data(BROKEN) == THOUGHT + BROKEN
        assert attempt.failure is None

    def test_a_turn_that_only_reasons_speaks_when_it_has_settled(self) -> None:
        attempt = stream("reasoning")
        assert attempt.data(THOUGHT) == b""
        assert attempt.data(STOP) == THOUGHT + STOP


class TestAnswer:
    def test_it_speaks_once_it_has_settled(self) -> None:
        attempt = stream("answer")
        given = [attempt.data(event) for event in (COMMENT, ROLE, THOUGHT, text("Hi"), STOP, DONE)]
        assert given == [b"", b"", b"", b"", COMMENT + ROLE + THOUGHT + text("Hi") + STOP, DONE]

    def test_an_early_finish_is_proven_by_the_terminator(self) -> None:
        attempt = stream("answer")
        first = delta("stop", content="Hi")
        assert [attempt.data(event) for event in (first, text("there"), DONE)] == [
            b"",
            b"",
            first + text("there") + DONE,
        ]

    def test_or_by_a_clean_end(self) -> None:
        attempt = stream("answer")
        assert attempt.data(delta("stop", content="Hi")) == b""
        assert attempt.end() == delta("stop", content="Hi")
        assert attempt.phase is Phase.COMPLETE

    def test_a_finish_that_is_taken_back_before_anything_was_shown(self) -> None:
        attempt = stream("answer")
        finish_on_each = [delta("stop", content="a"), delta("stop", content="b"), delta("stop")]
        assert [attempt.data(event) for event in finish_on_each] == [b"", b"", b""]
        attempt.end()
        assert attempt.failure is Failure.UNFINISHED
        assert not attempt.has_spoken

    def test_a_terminator_alone_is_no_proof(self) -> None:
        attempt = stream("answer")
        assert attempt.data(text("Hi") + DONE) == b""
        assert attempt.failure is Failure.UNFINISHED

    def test_unless_the_caller_says_so(self) -> None:
        assert stream("answer", accept_done=True).data(text("Hi") + DONE) == text("Hi") + DONE

    def test_an_event_that_cannot_be_read_is_for_the_reader(self) -> None:
        attempt = stream("answer")
        assert attempt.data(text("Hi") + BROKEN) == b""
        assert attempt.data(STOP) == text("Hi") + BROKEN + STOP

    def test_an_event_over_the_cap_too(self) -> None:
        attempt, large = stream("answer", max_event=1000), text("x" * 2000)
        pieces = [text("Hi"), large[:1500], large[1500:], STOP]
        assert b"".join(attempt.data(piece) for piece in pieces) == b"".join(pieces)

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
    def test_whatever_its_line_ends(self, line_end: bytes) -> None:
        attempt = stream("answer")
        body = (ROLE + text("Hi") + STOP + DONE).replace(b"\n", line_end)
        assert b"".join(attempt.data(body[at : at + 3]) for at in range(0, len(body), 3)) + attempt.end() == body


class TestCaps:
    @pytest.mark.parametrize("hold", ["reasoning", "answer"])
    def test_beyond_it_the_attempt_speaks(self, hold: Hold) -> None:
        attempt = stream(hold, max_hold=3 * len(THOUGHT), max_prelude=1)
        assert [attempt.data(THOUGHT) for _ in range(3)] == [b""] * 3
        assert attempt.held == 3 * len(THOUGHT)
        assert attempt.data(THOUGHT) == 4 * THOUGHT
        assert (attempt.held, attempt.shown_phase) == (0, Phase.OUTPUT)
        assert attempt.data(THOUGHT) == THOUGHT

    def test_it_does_not_touch_the_prelude_of_the_default(self) -> None:
        assert stream("prelude", max_hold=1).data(ROLE) == b""

    def test_a_document_is_held_up_to_it(self) -> None:
        attempt = Attempt(1, Call(OPENAI_CHAT, Generation(streaming=False)), Policy(max_hold=10), 0.0)
        attempt.open(Head(200, ((b"content-type", b"application/json"),)), Mode.WHOLE)
        assert attempt.data(b'{"a": "bc"') == b""
        assert attempt.data(b"}") == b'{"a": "bc"}'
        assert attempt.mode is Mode.OPAQUE

    def test_a_total_that_is_used_up_makes_it_speak(self) -> None:
        told: list[int] = []

        def may_hold(size: int) -> bool:
            told.append(size)
            return False

        call = Call(OPENAI_CHAT, Generation(streaming=True))
        turn = Turn(call, Policy(hold="answer"), now=0.0, random=lambda: 0.0, wall_clock=lambda: 0.0, may_hold=may_hold)
        turn.next()
        turn.head(EVENTS, 0.0)
        turn.data(ROLE, 0.0)
        assert isinstance(turn.next(), Read)
        turn.data(text("Hi"), 0.0)
        turn.next()
        assert turn.next() == Give(ROLE + text("Hi"))
        turn.data(text("there"), 0.0)
        assert told == [len(ROLE), len(ROLE + text("Hi")), 0]

    def test_it_is_told_that_nothing_is_held_any_more_when_the_attempt_is_lost(self) -> None:
        told: list[int] = []
        call = Call(OPENAI_CHAT, Generation(streaming=True))
        turn = Turn(
            call,
            Policy(hold="answer"),
            now=0.0,
            random=lambda: 0.0,
            wall_clock=lambda: 0.0,
            may_hold=lambda size: not told.append(size),  # type: ignore[func-returns-value]
        )
        turn.next()
        turn.head(EVENTS, 0.0)
        turn.data(ROLE, 0.0)
        turn.lost(Failure.RESET, "", 0.0, sent=True)
        assert told == [len(ROLE), 0]


# What each failure does, by what of an attempt was held


@dataclasses.dataclass(frozen=True)
class Done:
    """What is done about a failure under each choice: ``replay``, ``hand on``, ``end`` or an error."""

    prelude: str
    reasoning: str
    answer: str


LOSSES = [failure for failure in Failure if failure.row is Row.LOST and failure is not Failure.UNFINISHED]
#                    hold:  prelude      reasoning   answer
AFTER_REASONING = {
    "loss": Done("StreamCut", "replay", "replay"),
    "clean end": Done("StreamCut", "replay", "replay"),
    "forged [DONE]": Done("StreamCut", "replay", "replay"),
    "not processed": Done("StreamCut", "retry", "retry"),
    "transient error": Done("hand on", "replay later", "replay later"),
    "permanent error": Done("hand on", "hand on", "hand on"),
    "caller's timeout": Done("CallerTimeout", "CallerTimeout", "CallerTimeout"),
}
AFTER_TEXT = {name: dataclasses.replace(done, reasoning=done.prelude) for name, done in AFTER_REASONING.items()}
AFTER_SETTLING = {
    name: Done("end", "end", "end") for name in ("loss", "clean end", "not processed", "caller's timeout")
}
SAID = {"reasoning": THOUGHT, "text": text("Hi"), "settling": text("Hi") + STOP}
FAILURES: dict[str, list[Any]] = {
    "loss": [is_lost(failure, after=12, silent=3) for failure in LOSSES],
    "clean end": [ends(after=12, silent=3)],
    "forged [DONE]": [brings(DONE, after=12)],
    "not processed": [is_lost(Failure.NOT_PROCESSED, after=12)],
    "transient error": [brings(OVERLOADED, after=12)],
    "permanent error": [brings(INVALID, after=12)],
    "caller's timeout": [is_lost(Failure.CALLER_TIMEOUT, after=12, detail="read")],
}
ROWS = [
    pytest.param(said, name, hold, getattr(what, hold), id=f"{hold}-{name}-after-{said}")
    for said, table in (("reasoning", AFTER_REASONING), ("text", AFTER_TEXT), ("settling", AFTER_SETTLING))
    for name, what in table.items()
    for hold in HOLDS
]


def is_handed_on(said: str, hold: Hold) -> bool:
    return said == "settling" or hold == "prelude" or (hold == "reasoning" and said == "text")


class TestTable:
    @pytest.mark.parametrize(("said", "failure", "hold", "expected"), ROWS)
    def test_a_row(self, said: str, failure: str, hold: Hold, expected: str) -> None:
        for event in FAILURES[failure]:
            play = Playbook(hold=hold)
            play >> answers() >> brings(ROLE + SAID[said], after=2)
            if is_handed_on(said, hold):
                play << speaks(ROLE + SAID[said])
            play >> event
            CHECKS[expected](play, ROLE + SAID[said])


def check_again(action: str, later: bool = False) -> Callable[[Playbook, bytes], None]:
    def check(play: Playbook, said: bytes) -> None:
        play << again(action, delay=0.5 if later or action == "retry" else 0)
        [lost] = play.attempts
        assert (lost.phase, lost.held, lost.output_after) == (Phase.OUTPUT, True, 2)
        assert lost.billed == "yes"
        assert play.report.possibly_billed == 1
        play >> answers() >> brings(ROLE + text("Hello") + STOP) << speaks(ROLE + text("Hello") + STOP)
        play >> ends() << EndTurn()
        assert not play.attempts[-1].held

    return check


def check_handed_on(play: Playbook, said: bytes) -> None:
    while not isinstance(action := play.turn.next(), Read):
        assert isinstance(action, Give) or action.__class__.__name__ == "GiveHead"
    assert play.turn.phase is Phase.SETTLED


def check_error(kind: type[StreamCut] | type[CallerTimeout]) -> Callable[[Playbook, bytes], None]:
    def check(play: Playbook, said: bytes) -> None:
        play << fails(kind)
        assert play.error is not None
        assert play.error.held == (b"" if play.head else said)

    return check


def check_end(play: Playbook, said: bytes) -> None:
    while not isinstance(action := play.turn.next(), EndTurn):
        assert not isinstance(action, Send | Notify)


CHECKS: dict[str, Callable[[Playbook, bytes], None]] = {
    "replay": check_again("replay"),
    "replay later": check_again("replay", later=True),
    "retry": check_again("retry"),
    "hand on": check_handed_on,
    "StreamCut": check_error(StreamCut),
    "CallerTimeout": check_error(CallerTimeout),
    "end": check_end,
}


class TestTurn:
    def test_output_that_was_held_is_replayed_as_often_as_a_prelude(self) -> None:
        play = Playbook(hold="answer", replays=1)
        play >> answers() >> brings(ROLE + text("Hel"), after=3) >> is_lost(Failure.RESET, after=12)
        play << again("replay", delay=0, of=2)
        play >> answers() >> brings(ROLE + text("Hell"), after=1) >> is_lost(Failure.CLOSED, after=5)
        play << fails(StreamCut, "after output, of which nothing was handed on", retryable=True)
        assert play.error is not None
        assert play.error.held == ROLE + text("Hell")
        assert play.error.phase is Phase.OUTPUT
        assert "1 replay used up; 2 attempts in all" in str(play.error)

    def test_the_line_for_a_person_tells_that_it_was_held(self) -> None:
        play = Playbook(hold="answer")
        play >> answers() >> brings(ROLE + text("Hel"), after=3) >> is_lost(Failure.RESET, after=12)
        [_, told, *_] = play.rest()
        assert isinstance(told, Notify)
        line = "cut after 12.0 s of output, all held (connection reset) · replaying, attempt 2 of 4"
        assert describe(told.event) == line

    def test_the_first_output_is_the_models_although_it_is_held(self) -> None:
        play = Playbook(hold="answer", first_output_timeout=100.0, stall_timeout=60.0)
        play >> answers()
        limits = play.rest()[-1].limits  # type: ignore[union-attr]
        assert (limits.until, limits.stall) == (START + 100, None)
        play >> brings(THOUGHT, after=90)
        limits = play.rest()[-1].limits  # type: ignore[union-attr]
        assert (limits.until, limits.stall) == (None, 60.0)
        play >> brings(text("Hi") + STOP, after=500)
        play << speaks(THOUGHT + text("Hi") + STOP)
        play >> ends() << EndTurn()
        assert play.attempts[-1].output_after == 90

    def test_a_prelude_that_is_too_long_is_still_an_error(self) -> None:
        play = Playbook(hold="answer", first_output_timeout=100.0)
        play >> answers() >> brings(ROLE) >> is_lost(Failure.DEADLINE, after=100)
        play << fails(FirstOutputTimeout)

    def test_a_stall_of_held_output_is_a_replay(self) -> None:
        play = Playbook(hold="reasoning")
        play >> answers() >> brings(THOUGHT) >> is_lost(Failure.STALLED, after=600) << again("replay", delay=0)
        assert play.attempts[-1].billed == "yes"

    def test_beside_a_suspected_path_a_second_connection_is_tried_while_output_is_held(self) -> None:
        play = Playbook(hold="reasoning") >> answers() >> brings(THOUGHT) >> path(Suspected(20.0))
        play << tells("no answer from the path for 20 s, trying a second connection beside it") << waits(probe=0)

    def test_and_none_once_it_was_handed_on(self) -> None:
        play = Playbook(hold="reasoning") >> answers() >> brings(THOUGHT + text("Hi"))
        play << speaks(THOUGHT + text("Hi"))
        play >> path(Suspected(20.0)) << tells("no answer from the path for 20 s, still waiting") << waits()

    def test_an_answer_that_took_longer_than_give_up_after_is_replayed(self) -> None:
        play = Playbook(hold="answer", give_up_after=900.0)
        play >> answers() >> brings(text("Hi"), after=100)
        for _ in range(4):
            play >> brings(text("and on"), after=500)
        play >> is_lost(Failure.RESET, after=100) << again("replay", delay=0)
        play >> is_lost(Failure.RESET, after=901) << fails(StreamCut, "gave up after 900 s")

    def test_a_call_that_acts_is_not_replayed_however_much_is_held(self) -> None:
        play = Playbook(hold="answer", acts=True)
        play >> answers() >> brings(text("Hi")) >> is_lost(Failure.RESET)
        play << fails(StreamCut, "acts on the world")
        assert play.error is not None
        assert play.error.held == text("Hi")

    def test_a_transient_error_is_handed_on_when_the_replays_are_used_up(self) -> None:
        play = Playbook(hold="answer", replays=0)
        play >> answers() >> brings(text("Hi") + OVERLOADED) << speaks(text("Hi") + OVERLOADED)
        play >> ends() << EndTurn()
        assert play.attempts[-1].failure == "transient_error"

    def test_a_malformed_first_event_is_an_error_as_ever(self) -> None:
        play = Playbook(hold="answer")
        play >> answers() >> brings(ROLE + BROKEN) << fails(MalformedStream)

    def test_who_leaves_while_output_is_held_has_been_billed(self) -> None:
        play = Playbook(hold="answer")
        play >> answers() >> brings(text("Hi")) >> is_cancelled()
        [left] = play.attempts
        assert (left.failure, left.phase, left.held, left.billed) == ("cancelled", Phase.OUTPUT, True, "yes")

    def test_losses_tell_of_the_phase_that_was_reached(self) -> None:
        play = Playbook(hold="answer")
        play >> answers() >> brings(text("Hi")) >> is_lost(Failure.RESET) << again("replay", delay=0)
        assert play.report.losses == ("reset@output",)
        assert play.report.silent_cuts == []

    def test_nothing_is_sent_but_the_one_request(self) -> None:
        play = Playbook(hold="answer")
        play << sends(1)
        play >> answers() >> brings(text("Hi") + STOP + DONE) << speaks(text("Hi") + STOP + DONE)
        play >> ends() << done(EndTurn())


@pytest.mark.parametrize("hold", ["", "all", "Answer", None, 1, ["answer"]])
def test_an_unknown_choice_is_refused(hold: Any) -> None:
    with pytest.raises(UsageError, match="prelude, reasoning or answer"):
        Policy(hold=hold)
