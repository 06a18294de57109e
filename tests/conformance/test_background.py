"""A response that was made to go on at the server: refused, resumed, cancelled and deleted, on real sockets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from conformance.faces import DRIVERS, FACES, POLICY, Ask, Face
from conformance.fixtures import Setting
from conformance.leaving import WAYS, Left
from unbroken.client import Client
from unbroken.core.report import BackgroundReport
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.lab import Background, Fault, ScriptedAnswer, Upstream

TEXT = "The tide goes out, and what it leaves is the smell of salt."
ANSWER = ScriptedAnswer(text=TEXT)
ADDED = dataclasses.replace(POLICY, background=True)
SEEN = 0.03


def ask(setting: Setting, upstream: Upstream, **arguments: Any) -> Ask:
    return setting.ask(upstream, dialect="openai-responses", **{"policy": ADDED, **arguments})


def bodies(upstream: Upstream) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in upstream.requests_for("generation")]


@pytest.mark.parametrize("face", FACES, ids=str)
def test_a_stream_that_was_cut_is_taken_up(setting: Setting, face: Face) -> None:
    fault = Fault("rst", "after_events", offset=7, seconds=SEEN)
    upstream = setting.serve(fault, answer=ANSWER, background=Background())
    outcome = face.run(ask(setting, upstream))
    assert outcome.error is None
    assert outcome.text == TEXT if outcome.is_typed else outcome.data
    assert [event.action for event in outcome.told] == ["resume"]
    assert outcome.report.background == BackgroundReport(added=True)
    [body] = bodies(upstream)
    assert (body["background"], "store" in body) == (True, False)
    assert not upstream.requests_for("cancel")


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize(("refuses", "options"), [("background", {}), ("store", {"store": False}), ("stored", {})])
def test_a_server_that_refuses_is_asked_as_the_caller_wrote_it(
    setting: Setting, face: Face, refuses: Any, options: dict[str, Any]
) -> None:
    upstream = setting.serve(answer=ANSWER, background=Background(refuses=refuses))
    refused = RefusedBackgrounds()
    outcomes = [face.run(ask(setting, upstream, options=options, refused=refused)) for _ in range(2)]
    for outcome in outcomes:
        assert outcome.error is None
        assert outcome.text == TEXT if outcome.is_typed else outcome.data
        assert outcome.report.background is not None
        assert "refuse" in outcome.report.background.why_not
    asked = ["background" in body for body in bodies(upstream)]
    assert asked == ([True, False, False] if face in DRIVERS else [True, False] * 2)  # each client has its own memory


def test_a_client_remembers_it(setting: Setting) -> None:
    upstream = setting.serve(answer=ANSWER, background=Background(refuses="background"))
    with Client(**ask(setting, upstream).client_arguments()) as client:
        for _ in range(3):
            with client.stream("Hi") as turn:
                assert turn.read().text == TEXT
    assert ["background" in body for body in bodies(upstream)] == [True, False, False, False]


@pytest.mark.parametrize("face", FACES, ids=str)
def test_one_that_was_lost_before_its_id_came_is_replayed(setting: Setting, face: Face) -> None:
    upstream = setting.serve(Fault("rst", "before_headers"), answer=ANSWER, background=Background())
    outcome = face.run(ask(setting, upstream))
    assert outcome.error is None
    assert [event.action for event in outcome.told] == ["replay"]
    assert [one.runs_on for one in outcome.report.attempts] == [True, False]
    assert len(bodies(upstream)) == 2


@pytest.mark.parametrize("face", DRIVERS, ids=str)
def test_a_call_that_acts_on_the_world_is_left_as_it_is(setting: Setting, face: Face) -> None:
    upstream = setting.serve(answer=ANSWER, background=Background())
    outcome = face.run(ask(setting, upstream, options={"tools": [{"type": "mcp"}]}))
    assert outcome.report.background == BackgroundReport(added=False, why_not="the call acts on the world")
    assert "background" not in bodies(upstream)[0]


@pytest.mark.parametrize("face", FACES, ids=str)
def test_what_the_caller_did_not_want_kept_is_deleted(setting: Setting, face: Face) -> None:
    upstream = setting.serve(answer=ANSWER, background=Background())
    outcome = face.run(ask(setting, upstream, options={"store": False}))
    assert outcome.error is None
    assert outcome.report.background == BackgroundReport(added=True, deleted=True)
    [request] = upstream.requests_for("delete")
    assert request.target == "/v1/responses/resp_lab_1"


class TestLeaving:
    @pytest.mark.parametrize("way", WAYS)
    def test_cancels_the_response(self, setting: Setting, way: str) -> None:
        left, upstream = self.leave(setting, WAYS[way])
        [request] = upstream.requests_for("cancel")
        assert request.target == "/v1/responses/resp_lab_1/cancel"
        assert left.report.background == BackgroundReport(added=True, cancelled=True)
        assert left.report.attempts[-1].failure == "cancelled"
        assert left.back_at - left.at < 5

    @pytest.mark.parametrize("way", ["driver-trio-scope", "driver-asyncio-task", "driver-ctrl-c"])
    def test_is_told_where_that_is_refused(self, setting: Setting, way: str) -> None:
        left, upstream = self.leave(setting, WAYS[way], None, Fault("status", "before_headers", status=404))
        assert left.report.background == BackgroundReport(added=True, cancelled=False)
        assert len(upstream.requests_for("cancel")) == 1

    @pytest.mark.parametrize("way", WAYS)
    def test_leaves_a_callers_own_response_alone(self, setting: Setting, way: str) -> None:
        left, upstream = self.leave(setting, WAYS[way], background=True)
        assert left.report.background is None
        assert len(upstream.requests) == 1

    def leave(
        self, setting: Setting, way: Callable[..., Left], *faults: Fault | None, **options: Any
    ) -> tuple[Left, Upstream]:
        """Leave when the fourth token was sent: by then the first events have been read."""
        slow = dataclasses.replace(ANSWER, gap=0.1)
        upstream = setting.serve(*faults, answer=slow, background=Background())

        def is_under_way() -> bool:
            return bool(upstream.requests) and upstream.requests[0].sent.count(b"text.delta") > 6

        return way(ask(setting, upstream, options=options), lambda: upstream.wait_for(is_under_way, 5)), upstream
