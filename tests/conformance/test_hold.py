"""What is held can be replayed, on real sockets: every face, every dialect, every choice."""

from __future__ import annotations

import dataclasses
import json

import pytest

from conformance.expectations import LOST, is_cut, is_whole
from conformance.faces import CLIENTS, DRIVERS, FACES, POLICY, Ask, Face, Outcome
from conformance.fixtures import Setting
from transports.asking import CALLS
from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.failures import Phase
from unbroken.core.http import Request
from unbroken.core.policy import Hold
from unbroken.errors import StreamCut
from unbroken.lab import Fault, ScriptedAnswer, Upstream

THINKS = ScriptedAnswer(reasoning=["let me", "think"])
STREAMED = [name for name in CALLS if name != "chat, whole"]
OUTCOMES: dict[str, dict[Hold, str]] = {
    "after_reasoning": {"prelude": "cut", "reasoning": "replay", "answer": "replay"},
    "after_token": {"prelude": "cut", "reasoning": "cut", "answer": "replay"},
    "after_finish": {"prelude": "end", "reasoning": "end", "answer": "end"},
}
CASES = [
    pytest.param(point, hold, expected, id=f"{point}-{hold}")
    for point, row in OUTCOMES.items()
    for hold, expected in row.items()
]
FAULTS = ["rst", "fin", "clean_end"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskIn(Ask):
    """A turn in a dialect of the lab's."""

    dialect: str

    def request(self) -> tuple[Request, Call]:
        path, body = CALLS[self.dialect]
        url = self.url.removesuffix("/v1") + path
        fields = ((b"content-type", b"application/json"),)
        request = Request("POST", url, fields, json.dumps(body).encode())
        call = recognise(request)
        assert call is not None
        return request, call


def held(hold: Hold) -> dict[str, object]:
    return {"policy": dataclasses.replace(POLICY, hold=hold)}


def is_saved(outcome: Outcome, upstream: Upstream) -> None:
    """The first answer was lost in the middle and was paid for, and nobody saw anything of it."""
    assert outcome.error is None
    assert len(upstream.requests) == 2
    assert outcome.is_typed or outcome.data == upstream.requests[-1].sent
    [lost, answered] = outcome.report.attempts
    assert lost.failure in LOST
    assert (lost.phase, lost.held, lost.billed) == (Phase.OUTPUT, True, "yes")
    assert lost.output_after is not None
    assert not answered.held
    assert [told.action for told in outcome.told] == ["replay"]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(("point", "hold", "expected"), CASES)
@pytest.mark.parametrize("face", FACES, ids=str)
def test_chat(settings, face: Face, point: str, hold: Hold, expected: str, kind: str) -> None:
    setting: Setting = settings("http1")
    upstream = setting.serve(Fault(kind, point), answer=THINKS)
    outcome = face.run(setting.ask(upstream, **held(hold)))
    match expected:
        case "replay":
            is_saved(outcome, upstream)
            is_whole(outcome, upstream, requests=2)
        case "end":
            is_whole(outcome, upstream, requests=1)
        case "cut":
            is_cut(outcome, upstream, text="" if point == "after_reasoning" else "Hello")


@pytest.mark.parametrize(("point", "hold", "expected"), CASES)
@pytest.mark.parametrize("dialect", [name for name in STREAMED if name != "chat"])
@pytest.mark.parametrize("face", DRIVERS[:2], ids=str)
def test_the_other_dialects(settings, face: Face, dialect: str, point: str, hold: Hold, expected: str) -> None:
    setting: Setting = settings("http1")
    upstream = setting.serve(Fault("rst", point, seconds=0.05), answer=THINKS)
    outcome = face.run(AskIn(url=upstream.url, tls=setting.tls.client, dialect=dialect, **held(hold)))
    if point == "after_finish":
        assert outcome.error is None
    elif dialect == "completions" and point == "after_reasoning":  # the lab's have none: it is cut in the prelude
        assert outcome.data == upstream.requests[-1].sent
        assert not outcome.report.attempts[0].held
    elif expected == "replay":
        is_saved(outcome, upstream)
    else:
        assert isinstance(outcome.error, StreamCut)
        assert outcome.data
        assert not outcome.error.held


def test_over_http2(settings) -> None:
    setting: Setting = settings("http2")
    upstream = setting.serve(Fault("rst_stream", "after_token"), answer=THINKS)
    is_saved(DRIVERS[1].run(setting.ask(upstream, **held("answer"))), upstream)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_held_output_that_stalls_is_replayed(settings, face: Face) -> None:
    setting: Setting = settings("http1")
    upstream = setting.serve(Fault("stall", "after_token"), answer=THINKS)
    policy = dataclasses.replace(POLICY, hold="answer", stall_timeout=0.2)
    outcome = face.run(setting.ask(upstream, policy=policy))
    is_saved(outcome, upstream)
    assert outcome.report.attempts[0].failure == "stalled"


@pytest.mark.parametrize("face", FACES, ids=str)
def test_what_was_held_is_on_the_error_when_the_replays_are_used_up(settings, face: Face) -> None:
    setting: Setting = settings("http1")
    faults = [Fault("fin", "after_token") for _ in range(2)]
    upstream = setting.serve(*faults, answer=THINKS)
    outcome = face.run(setting.ask(upstream, policy=dataclasses.replace(POLICY, hold="answer", replays=1)))
    error = outcome.error
    assert isinstance(error, StreamCut)
    assert "of which nothing was handed on" in str(error)
    assert not outcome.data
    assert not outcome.events
    assert len(upstream.requests) == 2
    assert upstream.requests[-1].sent.startswith(error.held)
    assert error.report is not None
    assert [attempt.held for attempt in error.report.attempts] == [True, True]
    if face in CLIENTS:
        assert (error.text, error.reasoning) == ("Hello", "let methink")
        assert outcome.text == "Hello"
