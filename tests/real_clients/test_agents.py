"""Real clients behind the relay: a turn that is cut before its output is whole, and the client never notices."""

from __future__ import annotations

import pytest

from real_clients import running
from real_clients.clients import ANSWER, CLIENTS, Client
from real_clients.seen import (
    AFTER_OUTPUT,
    BACKGROUND,
    BEFORE_OUTPUT,
    CONTINUE,
    HOLD_ANSWER,
    HOLD_REASONING,
    MIDDLE,
    NOT_CONTINUED,
    REFUSED_BACKGROUND,
    REFUSED_STORE,
    Choice,
    Seen,
    chosen,
    faults_before,
    path_of,
    relayed,
)
from unbroken.cli.presets import find_preset
from unbroken.lab import Fault, ScriptedAnswer, Upstream

pytestmark = [pytest.mark.slow, pytest.mark.agents, pytest.mark.usefixtures("agent")]

LOST = {"rst": "reset@headers", "fin": "truncated@prelude", "clean_end": "unfinished@prelude"}
"""How the relay's log names each of the cuts."""


RESPONDING = tuple(client for client in CLIENTS if client.dialect == "responses")


def of_each(clients: tuple[Client, ...]) -> pytest.MarkDecorator:
    """One test a client; a client's tests run on one worker."""
    cases = [
        pytest.param(client, id=client.name, marks=pytest.mark.xdist_group(f"agents {client.name}"))
        for client in clients
    ]
    return pytest.mark.parametrize("client", cases)


def of_faults(faults: tuple[Fault, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults, ids=[f"{fault.kind}@{fault.at}" for fault in faults])


@of_each(CLIENTS)
def test_uncut_it_sends_what_is_known_of_it(client: Client) -> None:
    seen = relayed(client, None)
    assert seen.outcome == "whole", words_of(seen)
    assert seen.sent == client.sends
    assert list(seen.received) == reaching(client)
    assert not any(entry["lost"] for entry in seen.log)


@of_faults(BEFORE_OUTPUT)
@of_each(CLIENTS)
def test_cut_before_output_it_is_answered_and_asks_once(client: Client, fault: Fault) -> None:
    seen = relayed(client, fault)
    assert seen.outcome == "whole", words_of(seen)
    assert seen.sent == client.sends
    turn = len(faults_before(client))
    whole = reaching(client)
    assert list(seen.received) == [*whole[: turn + 1], *whole[turn:]]
    assert (seen.turn["outcome"], seen.turn["attempts"], seen.turn["replays"]) == ("answered", 2, 1)
    assert seen.turn["lost"] == [LOST[fault.kind]]


@of_faults(AFTER_OUTPUT)
@of_each(CLIENTS)
def test_cut_after_output_it_is_told_so_in_the_form_that_helps_it_most(client: Client, fault: Fault) -> None:
    """The relay has replayed nothing: what the client does then is its own affair, and in the table."""
    seen = relayed(client, fault)
    assert seen.outcome == client.after_cut, words_of(seen)
    assert "cut" in [entry["outcome"] for entry in seen.log]
    assert len(seen.received) == sum(entry["method"] == "POST" for entry in seen.log)
    assert len(seen.turns) == (1 if client.after_cut == "error" else 2)


@pytest.mark.parametrize("choice", [HOLD_ANSWER, HOLD_REASONING], ids=["answer", "reasoning"])
@of_each(CLIENTS)
def test_cut_in_what_is_held_it_is_answered_and_asks_once(client: Client, choice: Choice) -> None:
    seen = chosen(client, choice)
    answered_at_once(client, seen)
    assert seen.turn["seams"] == []


@of_each(tuple(client for client in CLIENTS if client.name not in NOT_CONTINUED))
def test_cut_in_its_answer_that_is_continued_it_asks_once(client: Client) -> None:
    seen = chosen(client, CONTINUE)
    answered_at_once(client, seen)
    assert seen.turn["seams"] == [MIDDLE.offset]


@of_each(RESPONDING)
def test_cut_in_a_response_that_goes_on_at_the_server_it_asks_once(client: Client) -> None:
    seen = chosen(client, BACKGROUND)
    assert seen.outcome == "whole", words_of(seen)
    assert seen.sent == client.sends
    assert (seen.turn["outcome"], seen.turn["lost"], seen.turn["replays"]) == ("answered", ["truncated@output"], 0)
    assert any(request.startswith("GET /v1/responses/") for request in seen.received)


@of_each(RESPONDING)
def test_where_the_server_refuses_that_its_answer_is_held(client: Client) -> None:
    held_instead(client, REFUSED_BACKGROUND)


@of_each(tuple(client for client in CLIENTS if client.command[0] == "codex"))
def test_or_refuses_it_to_a_call_that_is_not_stored(client: Client) -> None:
    held_instead(client, REFUSED_STORE)


def held_instead(client: Client, choice: Choice) -> None:
    """Check that a call that was refused in the background is answered from the client's one request."""
    seen = chosen(client, choice)
    assert seen.outcome == "whole", words_of(seen)
    assert seen.sent == client.sends
    assert seen.turn["lost"][-1:] == ["truncated@output"]
    assert (seen.turn["outcome"], seen.turn["replays"]) == ("answered", 1)


def answered_at_once(client: Client, seen: Seen) -> None:
    """Check that the client has a whole answer from one request of its own, which the relay has sent twice."""
    assert seen.outcome == "whole", words_of(seen)
    assert seen.sent == client.sends
    assert (seen.turn["outcome"], seen.turn["lost"], seen.turn["replays"]) == ("answered", ["truncated@output"], 1)


@of_each(tuple(client for client in CLIENTS if client.by_environment))
def test_exec_is_all_it_takes(client: Client) -> None:
    cut = Fault("rst", "before_headers")
    with Upstream(answer=ScriptedAnswer(text=ANSWER), faults=[*faults_before(client), cut]) as upstream:
        ran = running.run(client, running.straight_at(upstream.origin), before=(*running.EXEC, "--"))
        assert client.said(ran.stdout) == ANSWER, ran
        assert ran.code == 0
        assert len(upstream.requests) == len(client.sends) + 1
        assert {f"POST {path_of(request)}" for request in upstream.requests} == set(reaching(client))
    assert "1 survived" in ran.stderr.splitlines()[-1]


@of_each(tuple(client for client in CLIENTS if client.by_environment and find_preset(client.command)))
def test_exec_holds_the_answer_of_a_program_that_shows_nothing_before_its_end(client: Client) -> None:
    """Heartbeats come meanwhile."""
    slowly = ScriptedAnswer(text=ANSWER, gap=0.3)
    held = (*running.EXEC, "--heartbeat", "0.1", "--")
    with Upstream(answer=slowly, faults=[*faults_before(client), MIDDLE]) as upstream:
        ran = running.run(client, running.straight_at(upstream.origin), before=held)
    assert (ran.code, client.said(ran.stdout)) == (0, ANSWER), ran
    assert "1 survived a lost attempt; for" in ran.stderr.splitlines()[-1]


def reaching(client: Client) -> list[str]:
    """What reaches the upstream of what a client sends: all but its try for a WebSocket, under the version's path."""
    return [sent.replace(" /messages", " /v1/messages") for sent in client.sends if not sent.startswith("GET")]


def words_of(seen: Seen) -> str:
    return f"{seen.outcome}, exit code {seen.ran.code}: {seen.ran.stdout[-1000:]}{seen.ran.stderr[-2000:]}{seen.log}"
