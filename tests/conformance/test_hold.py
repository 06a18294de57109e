"""What is held can be replayed, on real sockets; ``test_choices.py`` has every face, dialect and choice."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.expectations import LOST
from conformance.faces import CLIENTS, DRIVERS, FACES, POLICY, Face, Outcome
from conformance.fixtures import Setting
from unbroken.core.failures import Phase
from unbroken.core.policy import Hold
from unbroken.errors import StreamCut
from unbroken.lab import Fault, ScriptedAnswer, Upstream

THINKS = ScriptedAnswer(reasoning=["let me", "think"])


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
