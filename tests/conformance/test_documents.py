"""Calls that ask for one JSON document: nothing is shown before it is whole, so a cut anywhere can be replayed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from conformance.expectations import LOST, fails, is_handed_on
from conformance.faces import FACES, POLICY, Face, Outcome
from conformance.fixtures import Setting
from unbroken.errors import StreamCut
from unbroken.lab import Fault, ScriptedAnswer, Upstream

POINTS = ("before_headers", "after_headers", "after_role", "after_token")
WHOLE = {"stream": False}


def is_one_whole_document(outcome: Outcome, upstream: Upstream, *, requests: int) -> None:
    assert outcome.error is None
    assert len(upstream.requests) == requests
    assert (outcome.report.replays, outcome.report.retries) == (requests - 1, 0)
    if outcome.is_typed:
        assert outcome.text == "Hello from the lab."
    else:
        assert outcome.data == upstream.requests[-1].sent
        assert json.loads(outcome.data or b"")["id"] == f"chatcmpl-lab-{requests}"


def test_nothing_goes_wrong(face: Face, setting: Setting) -> None:
    upstream = setting.serve()
    is_one_whole_document(face.run(setting.ask(upstream, options=WHOLE)), upstream, requests=1)


@pytest.mark.parametrize(
    ("kind", "at"),
    [(kind, at) for kind in ("rst", "fin") for at in POINTS] + [("short_length", at) for at in POINTS[1:]],
)
def test_a_cut_in_the_body_is_replayed(face: Face, setting: Setting, kind: str, at: str) -> None:
    upstream = setting.serve(Fault(kind, at))
    outcome = face.run(setting.ask(upstream, options=WHOLE))
    is_one_whole_document(outcome, upstream, requests=2)
    assert outcome.report.attempts[0].failure in LOST


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_an_end_that_looks_clean_is_seen_through(face: Face, settings, framing: str) -> None:
    setting = settings("http1")
    upstream = setting.serve(Fault("clean_end", "after_role"), answer=ScriptedAnswer(framing=framing))
    outcome = face.run(setting.ask(upstream, options=WHOLE))
    is_one_whole_document(outcome, upstream, requests=2)
    assert outcome.report.attempts[0].failure == "truncated"


def test_a_silent_server_is_given_up(face: Face, settings) -> None:
    setting: Setting = settings("http1")
    upstream = setting.serve(Fault("stall", "after_role"))
    outcome = face.run(setting.ask(upstream, options=WHOLE, policy=dataclasses.replace(POLICY, idle_timeout=0.2)))
    is_one_whole_document(outcome, upstream, requests=2)
    assert outcome.report.attempts[0].failure == "idle_timeout"


def test_the_budget_holds(face: Face, setting: Setting) -> None:
    upstream = setting.serve(*[Fault("fin", "after_role")] * 9)
    fails(face.run(setting.ask(upstream, options=WHOLE)), upstream, StreamCut, requests=4)


def test_a_refusal_is_handed_on(face: Face, setting: Setting) -> None:
    upstream = setting.serve(Fault("status", "before_headers", status=401))
    is_handed_on(face.run(setting.ask(upstream, options=WHOLE)), upstream, status=401)


def test_a_stream_where_none_was_asked_for_is_handed_on(setting: Setting) -> None:
    body = b'data: {"choices": []}\n\ndata: [DONE]\n\n'
    headers = {"content-type": "text/event-stream"}
    for face in FACES:
        upstream = setting.serve(Fault("status", "before_headers", status=200, headers=headers, body=body))
        is_handed_on(face.run(setting.ask(upstream, options=WHOLE)), upstream, status=200)
