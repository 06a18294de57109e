"""A Responses stream that is taken up after a cut, under an SDK's HTTP client."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from transports.asking import CALLS, POLICY, Way
from unbroken.errors import UsageError
from unbroken.lab import Background, Fault, Upstream

Serve = Callable[..., Upstream]
PATH, BODY = CALLS["responses"]
CUT = Fault("clean_end", "after_events", offset=6)


def test_what_the_caller_asked_to_go_on_is_taken_up(way: Way, serve: Serve) -> None:
    upstream = serve(CUT, background=Background())
    reply = way.post(upstream.origin + PATH, BODY | {"background": True})
    assert reply.error is None
    assert reply.data == b"".join(request.sent for request in upstream.requests)
    assert [resume.after for resume in reply.report.resumes] == ["5"]
    assert len(upstream.requests_for("resume")) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"policy": dataclasses.replace(POLICY, background=True)},
        {"extensions": {"unbroken": {"background": True}}},
        {"extensions": {"unbroken": {"background": True, "hold": "answer"}}},
    ],
    ids=["policy", "request", "request that holds"],
)
def test_and_what_is_made_to(way: Way, serve: Serve, more: dict[str, Any]) -> None:
    upstream = serve(CUT, background=Background())
    reply = way.post(upstream.origin + PATH, BODY, **more)
    assert reply.error is None
    assert reply.data == b"".join(request.sent for request in upstream.requests)
    assert json.loads(upstream.requests[0].body) == BODY | {"background": True}


def test_the_request_has_the_last_word(way: Way, serve: Serve) -> None:
    upstream = serve(background=Background())
    policy = dataclasses.replace(POLICY, background=True)
    way.post(upstream.origin + PATH, BODY, policy=policy, extensions={"unbroken": {"background": False}})
    assert json.loads(upstream.requests[0].body) == BODY


@pytest.mark.parametrize("wanted", [1, None, "yes"])
def test_what_is_no_choice_is_a_mistake(way: Way, serve: Serve, wanted: Any) -> None:
    upstream = serve()
    reply = way.post(upstream.origin + PATH, BODY, extensions={"unbroken": {"background": wanted}})
    assert isinstance(reply.error, UsageError)
    assert not upstream.requests
