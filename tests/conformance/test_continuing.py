"""An answer that is continued after a cut, on real sockets, by every face."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from conformance.faces import FACES, POLICY, Face
from conformance.fixtures import Setting
from unbroken.core.continuation.format import STYLES, Style
from unbroken.core.events import Text
from unbroken.errors import StreamCut
from unbroken.lab import Continuation, Fault, ScriptedAnswer, Upstream

TEXT = "The tide goes out, and what it leaves is the smell of salt.\n\nThen it comes back in."
ANSWER = ScriptedAnswer(text=TEXT)
CONTINUE = dataclasses.replace(POLICY, after_output="continue")
CHAT_STYLES = [style for style in STYLES if style != "completion"]


SEEN = 0.03
"""Seconds after which what was sent has been read: a reset discards what has not."""


def cut(character: int, kind: Any = "rst") -> Fault:
    """A cut after so many characters of the text."""
    return Fault(kind, "after_characters", offset=character, seconds=SEEN)


def text_of(outcome: Any) -> str:
    """What the caller reads."""
    if outcome.is_typed:
        return outcome.text
    events = [line[6:] for line in outcome.data.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("style", CHAT_STYLES)
@pytest.mark.parametrize("kind", ["rst", "clean_end"])
def test_the_rest_follows_in_the_same_stream(setting: Setting, face: Face, style: Style, kind: Any) -> None:
    faults = [
        cut(23, kind),
        Fault("rst", "after_role", seconds=SEEN),
        Fault(kind, "after_bytes", offset=950, seconds=SEEN),
    ]
    upstream = setting.serve(*faults, answer=ANSWER, continuation=Continuation(style))
    outcome = face.run(setting.ask(upstream, policy=CONTINUE, continuation=style))
    assert outcome.error is None
    assert text_of(outcome) == TEXT
    assert [seam.character for seam in outcome.report.seams][:1] == [23]
    assert outcome.report.replays == 3
    assert [event.action for event in outcome.told] == ["continue"] * 3
    assert outcome.told[0].character == 23
    if not outcome.is_typed:
        assert outcome.data.count(b'"role"') == 1
        assert {json.loads(line[6:])["id"] for line in outcome.data.split(b"\n") if line[:7] == b"data: {"} == {
            "chatcmpl-lab-1"
        }


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("manner", ["refuses", "reasons", "overlaps"])
def test_what_does_not_fit_is_a_cut_with_what_had_come(setting: Setting, face: Face, manner: Any) -> None:
    fault = cut(45)
    upstream = setting.serve(fault, answer=ANSWER, continuation=Continuation("prefix", manner))
    outcome = face.run(setting.ask(upstream, policy=CONTINUE, continuation="prefix"))
    assert type(outcome.error) is StreamCut
    assert text_of(outcome) == TEXT[:45]
    assert len(upstream.requests) == 2
    assert outcome.report.seams == ()
    assert outcome.error.phase == "output"


@pytest.mark.parametrize("face", FACES, ids=str)
def test_without_the_policy_or_a_style_a_cut_is_a_cut(setting: Setting, face: Face) -> None:
    for more in ({"policy": POLICY, "continuation": "prefix"}, {"policy": CONTINUE}):
        upstream = setting.serve(cut(3), answer=ANSWER, continuation=Continuation("prefix"))
        outcome = face.run(setting.ask(upstream, **more))
        assert type(outcome.error) is StreamCut
        assert text_of(outcome) == "The"
        assert len(upstream.requests) == 1
    assert "--continuation" in str(outcome.error)


def test_no_more_is_asked_than_the_budget_allows(setting: Setting) -> None:
    for replays in (0, 1, 2):
        upstream = setting.serve(*[cut(10)] * 9, answer=ANSWER, continuation=Continuation("prefix"))
        policy = dataclasses.replace(CONTINUE, replays=replays)
        outcome = FACES[0].run(setting.ask(upstream, policy=policy, continuation="prefix"))
        assert type(outcome.error) is StreamCut
        assert len(upstream.requests) == 1 + replays
        assert text_of(outcome) == TEXT[: 10 * (1 + replays)]


def test_a_busy_server_is_asked_again_for_the_rest(setting: Setting) -> None:
    busy = Fault("status", "before_headers", status=429)
    upstream = setting.serve(cut(10), busy, answer=ANSWER, continuation=Continuation("prefix"))
    outcome = FACES[0].run(setting.ask(upstream, policy=CONTINUE, continuation="prefix"))
    assert text_of(outcome) == TEXT
    assert (outcome.report.replays, outcome.report.retries) == (1, 1)


def test_a_length_that_was_announced_does_not_hold_any_more(setting: Setting) -> None:
    fault = Fault("short_length", "after_characters", offset=23, seconds=SEEN)
    answer = dataclasses.replace(ANSWER, framing="length")
    upstream = setting.serve(fault, answer=answer, continuation=Continuation("prefix"))
    outcome = FACES[0].run(setting.ask(upstream, policy=CONTINUE, continuation="prefix"))
    assert text_of(outcome) == TEXT
    assert outcome.head is not None
    assert "content-length" not in outcome.head.fields


def asks_for_the_rest(upstream: Upstream, error: StreamCut, client: Any) -> str:
    rest = error.continuation()
    assert rest.messages is not None
    with client.stream(rest.messages, **rest.options) as turn:
        return rest.text + turn.read().text


@pytest.mark.parametrize("style", CHAT_STYLES)
def test_a_program_can_go_on_by_itself(setting: Setting, style: Style) -> None:
    from unbroken.client import Client

    upstream = setting.serve(cut(23), answer=ANSWER, continuation=Continuation(style))
    ask = setting.ask(upstream, continuation=style)
    with Client(**ask.client_arguments()) as client:
        turn = client.stream("Hi", temperature=0.5, max_tokens=99)
        with pytest.raises(StreamCut) as raised, turn:
            turn.read()
        assert asks_for_the_rest(upstream, raised.value, client) == TEXT
    first, second = (json.loads(request.body) for request in upstream.requests)
    assert second["messages"][:-1] == first["messages"]
    assert second["temperature"] == 0.5


def test_a_program_is_told_why_it_cannot(setting: Setting) -> None:
    upstream = setting.serve(cut(3), cut(3), answer=ANSWER)
    for face in (FACES[0], FACES[3]):
        outcome = face.run(setting.ask(upstream))
        assert isinstance(outcome.error, StreamCut)
        rest = outcome.error.continuation()
        assert rest.messages is None
        assert ("typed client" if not outcome.is_typed else "continuation=") in rest.reason


def test_the_events_of_a_typed_client_are_those_of_one_answer(setting: Setting) -> None:
    fault = cut(23)
    upstream = setting.serve(fault, answer=ANSWER, continuation=Continuation("prefix"))
    outcome = FACES[3].run(setting.ask(upstream, policy=CONTINUE, continuation="prefix"))
    assert "".join(event.text for event in outcome.events or () if isinstance(event, Text)) == TEXT
