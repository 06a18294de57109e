"""A Responses stream that is taken up after a cut, on real sockets, by every face."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from conformance.faces import DRIVERS, FACES, KEY, POLICY, Ask, Face, Outcome
from conformance.fixtures import Setting
from unbroken.errors import StreamCut
from unbroken.lab import Background, Fault, ScriptedAnswer, Upstream

TEXT = "The tide goes out, and what it leaves is the smell of salt.\n\nThen it comes back in."
ANSWER = ScriptedAnswer(text=TEXT, reasoning=["Let me", " think."])
KEEPS = Background()
SEEN = 0.03
"""Seconds after which what was sent has been read: a reset discards what has not."""


def cut(events: int, kind: Any = "rst") -> Fault:
    """A cut after so many events of the stream."""
    return Fault(kind, "after_events", offset=events, seconds=SEEN)


def ask(setting: Setting, upstream: Upstream, dialect: str = "openai-responses", **arguments: Any) -> Ask:
    options = {"background": True, **arguments.pop("options", {})}
    return setting.ask(upstream, dialect=dialect, options=options, **arguments)


def assert_is_the_uncut_stream(
    outcome: Outcome,
    upstream: Upstream,
    face: Face,
    setting: Setting,
    dialect: str = "openai-responses",
    background: Background = KEEPS,
) -> None:
    assert outcome.error is None
    if outcome.is_typed:
        assert outcome.text == TEXT
        return
    uncut = setting.serve(answer=ANSWER, background=background)
    whole = face.run(ask(setting, uncut, dialect))
    assert outcome.data == whole.data == uncut.requests[0].sent


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("kind", ["rst", "clean_end"])
def test_the_bytes_are_those_of_one_uncut_stream(setting: Setting, face: Face, kind: Any) -> None:
    faults = [cut(2, kind), cut(3, kind), Fault(kind, "after_bytes", offset=900, seconds=SEEN)]
    upstream = setting.serve(*faults, answer=ANSWER, background=KEEPS)
    outcome = face.run(ask(setting, upstream))
    assert_is_the_uncut_stream(outcome, upstream, face, setting)
    assert [event.action for event in outcome.told] == ["resume"] * 3
    assert (outcome.report.replays, outcome.report.retries, outcome.report.possibly_billed) == (0, 0, 0)
    assert [one.after for one in outcome.report.resumes][:2] == ["1", "4"]
    assert (len(upstream.requests_for("generation")), len(upstream.requests_for("resume"))) == (1, 3)
    for request in upstream.requests_for("resume"):
        assert request.header("authorization") == f"Bearer {KEY}"
        assert (request.body, request.header("content-type")) == (b"", None)


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("hold", ["reasoning", "answer"])
def test_what_is_held_is_taken_up_too(setting: Setting, face: Face, hold: Any) -> None:
    upstream = setting.serve(cut(5), cut(3), answer=ANSWER, background=KEEPS)
    outcome = face.run(ask(setting, upstream, policy=dataclasses.replace(POLICY, hold=hold)))
    assert_is_the_uncut_stream(outcome, upstream, face, setting)
    assert len(upstream.requests_for("generation")) == 1


@pytest.mark.parametrize("face", FACES, ids=str)
def test_busy_servers_and_lost_requests_in_between(setting: Setting, face: Face) -> None:
    busy = Fault("status", "before_headers", status=503)
    upstream = setting.serve(cut(6), busy, Fault("rst", "before_headers"), answer=ANSWER, background=KEEPS)
    outcome = face.run(ask(setting, upstream))
    assert_is_the_uncut_stream(outcome, upstream, face, setting)
    assert [event.action for event in outcome.told] == ["resume", "retry", "resume"]


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize(
    ("background", "why"),
    [
        (Background(forgets=True), "HTTP 404"),
        (Background(skips=frozenset({9})), "event 8 is followed by event 10"),
        (Background(repeats=frozenset({9})), "event 9 is followed by event 9"),
        (Background(rewinds=1), "event 7 is followed by event 7"),
    ],
    ids=["forgets", "skips", "repeats", "rewinds"],
)
def test_what_does_not_go_on_exactly_is_a_cut(setting: Setting, face: Face, background: Background, why: str) -> None:
    upstream = setting.serve(cut(8), answer=ANSWER, background=background)
    outcome = face.run(ask(setting, upstream))
    assert type(outcome.error) is StreamCut
    assert why in str(outcome.error)
    assert outcome.error.phase == "output"
    if outcome.data is not None:
        assert upstream.requests[0].sent.startswith(outcome.data)
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("face", FACES, ids=str)
def test_a_page_in_place_of_the_rest_is_a_cut(setting: Setting, face: Face) -> None:
    page = Fault("status", "before_headers", status=200, headers={"content-type": "text/html"}, body=b"<p>Log in</p>")
    upstream = setting.serve(cut(8), page, answer=ANSWER, background=KEEPS)
    outcome = face.run(ask(setting, upstream))
    assert type(outcome.error) is StreamCut
    assert "HTTP 200" in str(outcome.error)
    if outcome.data is not None:
        assert upstream.requests[0].sent.startswith(outcome.data)


@pytest.mark.parametrize("face", DRIVERS, ids=str)
def test_without_progress_no_more_is_asked_than_the_policy_allows(setting: Setting, face: Face) -> None:
    upstream = setting.serve(
        cut(8), *[Fault("rst", "after_headers", seconds=SEEN)] * 9, answer=ANSWER, background=KEEPS
    )
    outcome = face.run(ask(setting, upstream, policy=dataclasses.replace(POLICY, resumes=3)))
    assert type(outcome.error) is StreamCut
    assert "no event came of 3 resumed streams" in str(outcome.error)
    assert (len(upstream.requests_for("generation")), len(upstream.requests_for("resume"))) == (1, 3)


def test_a_server_that_ignores_background_is_a_server_like_any_other(setting: Setting) -> None:
    upstream = setting.serve(cut(8), answer=ANSWER)
    outcome = FACES[0].run(ask(setting, upstream))
    assert "HTTP 404" in str(outcome.error)


class TestInteractions:
    """Not every event has an id: those without one come again, and are dropped."""

    @pytest.mark.parametrize("face", FACES, ids=str)
    @pytest.mark.parametrize(
        "background",
        [KEEPS, Background(ids="all"), Background(preface=True), Background(ids="all", preface=True)],
        ids=["some have ids", "all have", "and each stream begins anew", "as if all were new"],
    )
    def test_the_bytes_are_those_of_one_uncut_stream(
        self, setting: Setting, face: Face, background: Background
    ) -> None:
        faults = [cut(4), cut(3, "clean_end"), cut(6)]
        upstream = setting.serve(*faults, answer=ANSWER, background=background)
        outcome = face.run(ask(setting, upstream, "interactions"))
        assert_is_the_uncut_stream(outcome, upstream, face, setting, "interactions", background)
        assert [event.action for event in outcome.told] == ["resume"] * 3
        assert (outcome.report.replays, outcome.report.possibly_billed) == (0, 0)
        assert (len(upstream.requests_for("generation")), len(upstream.requests_for("resume"))) == (1, 3)
        for request in upstream.requests_for("resume"):
            assert (request.body, request.header("content-type")) == (b"", None)

    @pytest.mark.parametrize("face", FACES, ids=str)
    @pytest.mark.parametrize(
        ("background", "why"),
        [
            (Background(forgets=True), "HTTP 404"),
            (Background(ids="none"), "no event with an id had come"),
            (Background(skips=frozenset({6})), "other events came"),
        ],
        ids=["forgets", "has no ids", "skips"],
    )
    def test_what_cannot_be_taken_up_is_a_cut(
        self, setting: Setting, face: Face, background: Background, why: str
    ) -> None:
        upstream = setting.serve(cut(7), answer=ANSWER, background=background)
        outcome = face.run(ask(setting, upstream, "interactions"))
        assert type(outcome.error) is StreamCut
        assert why in str(outcome.error)
        if outcome.data is not None:
            assert upstream.requests[0].sent.startswith(outcome.data)
