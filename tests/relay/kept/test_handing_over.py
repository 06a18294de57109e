"""A relay that is stopped: what still runs at the end of its grace goes on elsewhere, where it can."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay.conftest import stack
from relay.kept.clients import LONG, RETRY, Relays, is_whole, unchunked
from relay.kept.processes import PATIENT, Replicas
from relay.kept.test_succession import ASKED, CONTINUE, RESPONSES, RESUME, SLOW, STOPS, THINKS, UNDER_KEY, Pair, patient
from relay.redis_server import RedisServer
from unbroken.lab import Background, Continuation
from waiting import poll

__all__ = ["patient", "stack"]


def test_a_response_that_goes_on_at_the_provider_is_left_to_another_relay(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=RESUME, background=Background())
    caller = pair.first.begin(path=RESPONSES, body=ASKED)
    caller.until(b"word3")
    pair.first.served.close()
    rest = caller.rest()
    assert b"relay_stopped" in rest
    assert not rest.endswith(b"0\r\n\r\n")
    answer = pair.second.ask(*RETRY, path=RESPONSES, body=ASKED)
    assert answer.whole
    assert b"response.completed" in answer.body
    assert b"relay_stopped" not in answer.body
    assert len(pair.lab.requests_for("resume")) == 1
    assert pair.lab.requests_for("cancel") == []
    assert pair.asked_upstream == 1


def test_whoever_reads_it_there_already_gets_the_rest(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    caller = pair.first.begin(*UNDER_KEY)
    before = caller.head()
    before.body = unchunked(caller.until(b"word3"))
    caller.close()
    other = pair.second.begin(*UNDER_KEY)
    answer = other.head()
    pair.first.served.close()
    other._read_chunks(answer)
    assert is_whole(answer)
    assert answer.body.startswith(before.body)
    assert pair.asked_upstream == 2


def test_where_nothing_was_sent_the_client_is_told_to_come_back_at_once(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, faults=[THINKS])
    caller = pair.first.begin()
    poll(lambda: pair.asked_upstream == 1, PATIENT)
    pair.first.served.close()
    told = caller.answer()
    assert (told.status, told.code, told.value("retry-after")) == (503, "relay_stopped", "0")
    assert told.value("x-should-retry") is None
    assert pair.lab.requests[0].gone
    assert is_whole(pair.second.ask(*RETRY))
    assert pair.asked_upstream == 2


def test_by_the_usual_policy_it_is_cut(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis)
    caller = pair.first.begin(*UNDER_KEY)
    head = caller.head()
    caller.until(b"word3")
    pair.first.served.close()
    assert b"relay_stopped" in caller.rest()
    answer = pair.second.collect(head.value("x-unbroken-turn"))
    assert not answer.whole
    assert b"relay_stopped" in answer.body
    assert is_whole(pair.second.ask(*UNDER_KEY))
    assert pair.asked_upstream == 2


def test_whatever_can_end_in_time_ends_here(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"), faults=(), grace=60.0)
    caller = pair.first.begin()
    answer = caller.head()
    pair.first.served.stop()
    caller._read_chunks(answer)
    assert is_whole(answer)
    assert pair.asked_upstream == 1


def test_in_memory_nothing_is_handed_over(in_memory: Relays) -> None:
    client = in_memory.serve(SLOW, [THINKS], grace=0.0)
    caller = client.begin(*UNDER_KEY)
    poll(lambda: in_memory.asked_upstream == 1, PATIENT)
    client.served.close()
    told = caller.answer()
    assert (told.status, told.code, told.value("retry-after")) == (503, "relay_stopped", None)


@pytest.mark.slow
def test_a_rolling_restart(stack: ExitStack, tmp_path: Path) -> None:
    replicas = Replicas(stack, tmp_path, SLOW, faults=[STOPS], background=Background())
    first, second = (replicas.start("--background", "--grace", "0.2") for _ in range(2))
    caller = replicas.begin(first, *UNDER_KEY, path=RESPONSES, body=ASKED)
    head = caller.head()
    head.body = unchunked(caller.until(b"word3"))
    replicas.has_stored(head.value("x-unbroken-turn"), len(head.body))
    first.program.send(signal.SIGTERM)
    rest = caller.rest()
    assert b"relay_stopped" in rest
    assert first.program.wait() == 0
    answer = replicas.ask(second, *UNDER_KEY, path=RESPONSES, body=ASKED)
    assert answer.whole
    assert answer.body.startswith(head.body)
    assert b"response.completed" in answer.body
    assert replicas.asked_upstream == 1
    assert len(replicas.lab.requests_for("resume")) == 1


@pytest.mark.slow
def test_a_detached_turn_ends_at_the_stopped_relay_for_its_client_at_another(stack: ExitStack, tmp_path: Path) -> None:
    replicas = Replicas(stack, tmp_path, LONG)
    first, second = replicas.start(), replicas.start()
    caller = replicas.begin(first, *UNDER_KEY)
    caller.until(b"word3")
    caller.close()
    poll(lambda: any(name.startswith("unbroken:1:request:") for name in replicas.redis.known()), PATIENT)
    first.program.send(signal.SIGTERM)
    assert is_whole(replicas.ask(second, *UNDER_KEY))
    assert first.program.wait() == 0
    assert replicas.asked_upstream == 1
