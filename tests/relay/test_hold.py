"""How much of an attempt the relay holds: for all, for one upstream, for one request, and for all turns together."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import anyio
import pytest

from relay.serving import Call, Received, Serve, Served, poll
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.errors import UsageError
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.relay import asgi
from unbroken.relay.budget import Budget
from unbroken.relay.client_request import Rejection
from unbroken.relay.settings import Settings, UpstreamSettings

THINKS = ScriptedAnswer(reasoning=["let me", "think"], text="Hello from the lab.")
CHAT = {"model": "lab", "messages": [], "stream": True}
QUICK = Policy(backoff_initial=0.01, settle_timeout=0.3)
SAVED = {
    ("after_reasoning", "prelude"): False,
    ("after_reasoning", "reasoning"): True,
    ("after_reasoning", "answer"): True,
    ("after_token", "prelude"): False,
    ("after_token", "reasoning"): False,
    ("after_token", "answer"): True,
}


def ask(served: Served, call: Call, *fields: tuple[str, str], path: str = "/v1", body: Any = CHAT) -> Received:
    return call(served).ask_json(f"{path}/chat/completions", body, fields)


def is_whole(received: Received) -> bool:
    return received.whole and b"data: [DONE]" in received.body


@pytest.mark.parametrize(("point", "hold"), SAVED, ids=str)
@pytest.mark.parametrize("by", ["relay", "upstream", "header"])
def test_what_is_held_is_replayed(serve: Serve, call: Call, point: Any, hold: Hold, by: str) -> None:
    with Upstream(faults=[Fault("fin", point)], answer=THINKS) as upstream:
        one = UpstreamSettings("lab", upstream.url, hold=hold if by == "upstream" else None)
        served = serve({"lab": one}, policy=dataclasses.replace(QUICK, hold=hold if by == "relay" else "prelude"))
        received = ask(served, call, *([("X-Unbroken-Hold", hold)] if by == "header" else []))
        assert is_whole(received) is SAVED[point, hold]
        assert len(upstream.requests) == 1 + SAVED[point, hold]
        assert all("x-unbroken-hold" not in request.headers for request in upstream.requests)
    if SAVED[point, hold]:
        assert received.value("x-unbroken-lost") in ("closed@output", "truncated@output")
        assert served.entry()["replays"] == 1


def test_the_request_has_the_last_word(serve: Serve, call: Call) -> None:
    with Upstream(faults=[Fault("fin", "after_token")], answer=THINKS) as upstream:
        served = serve({"lab": UpstreamSettings("lab", upstream.url, hold="answer")}, policy=QUICK)
        assert not is_whole(ask(served, call, ("x-unbroken-hold", "PRELUDE")))
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("asked", ["", "all", "answer, answer", "Antwort"])
def test_an_unknown_choice_is_a_400_that_names_the_three(served: Served, lab: Upstream, call: Call, asked: str) -> None:
    received = ask(served, call, ("x-unbroken-hold", asked))
    assert received.status == 400
    assert all(hold in received.json["error"]["message"] for hold in HOLDS)
    assert not lab.requests


def test_it_is_not_forwarded_with_other_requests_either(served: Served, lab: Upstream, call: Call) -> None:
    call(served).ask("GET", "/v1/models", [("x-unbroken-hold", "answer")])
    [request] = lab.requests
    assert "x-unbroken-hold" not in request.headers


def test_a_held_answer_that_is_lost_is_a_status(serve: Serve, call: Call) -> None:
    with Upstream(faults=[Fault("fin", "after_token")] * 2, answer=THINKS) as upstream:
        served = serve(upstream.url, policy=dataclasses.replace(QUICK, hold="answer", replays=1))
        received = ask(served, call)
    assert (received.status, received.code) == (502, "stream_cut")
    assert served.entry()["outcome"] == "lost"


def test_all_turns_together_hold_no_more_than_the_relay_may(serve: Serve, call: Call) -> None:
    """An answer that does not fit any more is handed on as it comes."""
    with Upstream(faults=[Fault("stall", "after_token")], answer=THINKS) as upstream:
        served = serve(upstream.url, policy=QUICK, max_held=len(json.dumps(CHAT)) + 100)
        client = call(served)
        client.begin("POST", "/v1/chat/completions", [("x-unbroken-hold", "answer")], json.dumps(CHAT).encode())
        assert b"let me" in client.until(b"Hello")
        client.close()
        poll(lambda: served.relay.recorder.totals.turns == 1)


def test_what_was_held_is_given_back(serve: Serve, call: Call) -> None:
    with Upstream(answer=THINKS) as upstream:
        served = serve(upstream.url, policy=dataclasses.replace(QUICK, hold="answer"))
        assert is_whole(ask(served, call))
        whole = ask(served, call, body={**CHAT, "stream": False})
        assert whole.json["choices"]
        poll(lambda: served.relay._budget.held == 0)


def test_a_large_answer_is_sent_in_parts_so_that_a_slow_client_is_seen_to_accept_it() -> None:
    sent: list[asgi.Message] = []

    async def send(message: asgi.Message) -> None:
        sent.append(message)

    data = bytes(range(256)) * 4096
    for size in (0, 1, asgi.PART, asgi.PART + 1, 2 * asgi.PART, len(data)):
        for more in (True, False):
            sent.clear()
            anyio.run(functools.partial(asgi.body, send, data[:size], more=more))
            assert b"".join(message["body"] for message in sent) == data[:size]
            assert max(len(message["body"]) for message in sent) <= asgi.PART
            assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [more]


class TestBudget:
    def test_what_a_response_holds_is_counted_anew(self) -> None:
        budget = Budget(Settings(upstreams={}, max_held=100))
        with budget.turn() as holding:
            holding.add(10)
            assert [holding.may_hold(size) for size in (50, 90, 20)] == [True, True, True]
            assert budget.held == 30
            assert not holding.may_hold(91)
            assert budget.held == 30
            with budget.turn() as other, pytest.raises(Rejection):
                other.add(71)
            assert holding.may_hold(0)
            assert budget.held == 10
        assert budget.held == 0


def test_settings_refuse_an_unknown_choice() -> None:
    with pytest.raises(UsageError, match="prelude, reasoning or answer"):
        UpstreamSettings("lab", "http://host/v1", hold="all")  # type: ignore[arg-type]
