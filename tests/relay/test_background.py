"""Responses that go on at the server, through the relay: asked for, resumed, and cancelled when the client leaves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from relay.serving import Call, Received, Serve, Served, poll
from unbroken.core.policy import Policy
from unbroken.lab import Background, Fault, ScriptedAnswer, Upstream
from unbroken.relay.settings import UpstreamSettings

QUICK = Policy(backoff_initial=0.01, settle_timeout=0.3)
ADDED = dataclasses.replace(QUICK, background=True)
BODY = {"model": "lab", "input": "Hi", "stream": True}
CUT = Fault("fin", "after_events", offset=6)


def ask(served: Served, call: Call, *fields: tuple[str, str], body: Any = BODY) -> Received:
    return call(served).ask_json("/v1/responses", body, fields)


def made_to_go_on(upstream: Upstream) -> list[bool]:
    return ["background" in json.loads(request.body) for request in upstream.requests_for("generation")]


@pytest.mark.parametrize("by", ["relay", "upstream", "header", "caller"])
def test_a_stream_that_was_cut_is_taken_up(serve: Serve, call: Call, by: str) -> None:
    with Upstream(faults=[CUT], background=Background()) as upstream:
        one = UpstreamSettings("lab", upstream.url, background=True if by == "upstream" else None)
        served = serve({"lab": one}, policy=ADDED if by == "relay" else QUICK)
        fields = [("X-Unbroken-Background", "True")] if by == "header" else []
        received = ask(served, call, *fields, body=BODY | ({"background": True} if by == "caller" else {}))
        assert received.whole
        assert received.body == b"".join(request.sent for request in upstream.requests)
        assert made_to_go_on(upstream) == [True]
        assert all("x-unbroken-background" not in dict(request.headers) for request in upstream.requests)
    entry = served.entry()
    assert (entry["resumes"], entry["replays"], entry["attempts"], entry["outcome"]) == (["5"], 0, 2, "answered")
    metrics = call(served).ask("GET", "/_unbroken/metrics").body.decode()
    assert 'unbroken_resumes_total{upstream="lab"} 1.0' in metrics


@pytest.mark.parametrize("by", ["header", "caller"])
def test_an_interaction_that_was_cut_is_taken_up(serve: Serve, call: Call, by: str) -> None:
    answer = ScriptedAnswer(text=["One, ", "two, ", "three."])
    with Upstream(answer=answer, faults=[CUT], background=Background(ids="all")) as upstream:
        served = serve({"lab": upstream.origin}, policy=QUICK)
        fields = [("x-unbroken-background", "true")] if by == "header" else []
        body = BODY | ({"background": True} if by == "caller" else {})
        received = call(served).ask_json("/v1beta/interactions", body, fields)
        assert received.whole
        assert received.body == b"".join(request.sent for request in upstream.requests)
        assert made_to_go_on(upstream) == [True]
    entry = served.entry()
    assert (entry["resumes"], entry["attempts"], entry["outcome"]) == (["e_5"], 2, "answered")


def test_the_request_has_the_last_word(serve: Serve, call: Call) -> None:
    with Upstream(background=Background()) as upstream:
        served = serve({"lab": UpstreamSettings("lab", upstream.url, background=True)}, policy=QUICK)
        ask(served, call, ("x-unbroken-background", "false"))
        assert made_to_go_on(upstream) == [False]


@pytest.mark.parametrize("said", ["", "yes", "true, true"])
def test_what_is_no_choice_is_a_400(served: Served, lab: Upstream, call: Call, said: str) -> None:
    received = ask(served, call, ("x-unbroken-background", said))
    assert received.status == 400
    assert "must be true or false" in received.json["error"]["message"]
    assert not lab.requests


def test_a_server_that_refuses_is_asked_once_more_and_remembered(serve: Serve, call: Call) -> None:
    with Upstream(background=Background(refuses="background")) as upstream:
        served = serve({"lab": upstream.url}, policy=ADDED)
        for _ in range(2):
            assert ask(served, call).status == 200
        assert made_to_go_on(upstream) == [True, False, False]
    assert [served.entry(number)["retries"] for number in (0, 1)] == [1, 0]


@pytest.mark.parametrize(
    ("answers", "unacknowledged", "tries"),
    [([], [], 1), ([404], ["cancel"], 1), ([503, 503, 503], ["cancel"], 3), ([503], [], 2)],
    ids=["acknowledged", "refused", "never answered", "answered late"],
)
def test_a_client_that_leaves_has_its_response_cancelled(
    serve: Serve, call: Call, answers: Sequence[int], unacknowledged: list[str], tries: int
) -> None:
    faults = [None, *(Fault("status", "before_headers", status=status) for status in answers)]
    slow = ScriptedAnswer(text="one two three four five six seven eight nine ten", gap=0.1)
    with Upstream(faults=faults, answer=slow, background=Background()) as upstream:
        served = serve({"lab": upstream.url}, policy=ADDED)
        client = call(served)
        client.begin("POST", "/v1/responses", [("content-type", "application/json")], json.dumps(BODY).encode())
        client.until(b" three")
        client.close()
        entry = served.entry()
        assert (entry["outcome"], entry["unacknowledged"]) == ("left", unacknowledged)
        assert len(upstream.requests_for("cancel")) == tries
        assert poll(lambda: served.tasks() >= 0)
    metrics = call(served).ask("GET", "/_unbroken/metrics").body.decode()
    counted = 'unbroken_unacknowledged_total{kind="cancel",upstream="lab"} 1.0' in metrics
    assert counted is bool(unacknowledged)
