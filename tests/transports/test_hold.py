"""How much of an attempt a transport holds: by its policy, or for one request."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from transports.asking import CALLS, POLICY, Way
from unbroken.core.policy import Hold
from unbroken.errors import StreamCut, UsageError
from unbroken.lab import Fault

STREAMED = [name for name in CALLS if name != "chat, whole"]
HELD = {"unbroken": {"hold": "answer"}}


def test_by_policy(way: Way, serve: Any) -> None:
    upstream = serve(Fault("fin", "after_token"))
    reply = way.post(upstream.url + "/chat/completions", policy=dataclasses.replace(POLICY, hold="answer"))
    assert reply.error is None
    assert reply.data == upstream.requests[-1].sent
    assert [attempt.held for attempt in reply.report.attempts] == [True, False]


@pytest.mark.parametrize("call", STREAMED)
def test_for_one_request(way: Way, serve: Any, call: str) -> None:
    path, body = CALLS[call]
    upstream = serve(Fault("fin", "after_token"))
    reply = way.post(upstream.url.removesuffix("/v1") + path, body, extensions=HELD)
    assert reply.error is None
    assert reply.data == upstream.requests[-1].sent
    assert len(upstream.requests) == 2


def test_the_request_has_the_last_word(way: Way, serve: Any) -> None:
    upstream = serve(Fault("fin", "after_token"))
    policy = dataclasses.replace(POLICY, hold="answer")
    asked = {"unbroken": {"hold": "prelude"}}
    reply = way.post(upstream.url + "/chat/completions", policy=policy, extensions=asked)
    assert isinstance(reply.error, way.library.ReadError)
    assert len(upstream.requests) == 1


def test_the_policys_choice_holds_where_the_request_makes_none(way: Way, serve: Any) -> None:
    upstream = serve(Fault("fin", "after_token"))
    policy = dataclasses.replace(POLICY, hold="answer")
    assert way.post(upstream.url + "/chat/completions", policy=policy, extensions={"unbroken": {}}).error is None


def test_what_was_held_is_on_the_error(way: Way, serve: Any) -> None:
    upstream = serve(Fault("fin", "after_token"))
    policy = dataclasses.replace(POLICY, replays=0)
    reply = way.post(upstream.url + "/chat/completions", policy=policy, extensions=HELD)
    assert (reply.status, reply.data) == (0, b"")
    assert isinstance(reply.error, way.library.ReadError)
    cause = reply.error.__cause__
    assert isinstance(cause, StreamCut)
    assert cause.held
    assert upstream.requests[0].sent.startswith(cause.held)


@pytest.mark.parametrize("wanted", [{"hold": "all"}, {"hold": None}, {"holds": "answer"}, "answer", True], ids=str)
def test_what_is_not_known_is_a_mistake(way: Way, serve: Any, wanted: Any) -> None:
    upstream = serve()
    reply = way.post(upstream.url + "/chat/completions", extensions={"unbroken": wanted})
    assert isinstance(reply.error, UsageError)
    assert not upstream.requests


@pytest.mark.parametrize("hold", ["prelude", "answer"])
def test_a_call_that_is_not_streamed_is_held_whole_anyway(way: Way, serve: Any, hold: Hold) -> None:
    path, body = CALLS["chat, whole"]
    upstream = serve(Fault("short_length", "after_token"))
    reply = way.post(upstream.url.removesuffix("/v1") + path, body, extensions={"unbroken": {"hold": hold}})
    assert json.loads(reply.data)["choices"]
    assert len(upstream.requests) == 2
