"""A relay that does not hold its leases in time: whoever has taken its turn goes on, and it ends."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay.conftest import stack
from relay.kept.clients import TEXT, Relays, is_whole, text_in
from relay.kept.processes import LEASE, PATIENT, Replicas
from relay.redis_server import RedisServer
from unbroken.lab.answer import ScriptedAnswer
from unbroken.relay.store.redis_scripts import PREFIX
from waiting import poll

__all__ = ["stack"]

SLOW = ScriptedAnswer(text=TEXT, gap=0.2)
FOR_LONG = ScriptedAnswer(text=[f" word{number}" for number in range(400)], gap=0.1)


def take(redis: RedisServer, turn: str | None) -> None:
    """Take a turn as another relay does whose lease comes behind this one's."""
    assert redis.ask("HINCRBY", f"{PREFIX}turn:{turn}", "epoch", "1") == b":2\r\n"
    assert redis.ask("SET", f"{PREFIX}lease:{turn}", "another") == b"+OK\r\n"


@pytest.mark.parametrize("client", ["stays", "has left"])
def test_a_turn_that_another_relay_has_taken_ends(stack: ExitStack, redis: RedisServer, client: str) -> None:
    relays = Relays(stack, redis.url)
    asked = relays.serve(FOR_LONG)
    if client == "stays":
        caller = asked.begin()
        turn = caller.head().value("x-unbroken-turn")
        caller.until(b"word1")
    else:
        turn = asked.leave(after=b"word1").value("x-unbroken-turn")
    take(redis, turn)
    poll(lambda: relays.lab.requests[0].gone, PATIENT)
    entry = asked.served.entry()
    assert (entry["outcome"], "another one has taken" in entry["detail"]) == ("cut", True)
    if client == "stays":
        rest = caller.rest()
        assert b"[DONE]" not in rest
        assert not rest.endswith(b"0\r\n\r\n")
    assert text_in(relays.lab.requests[0].sent) != "".join(FOR_LONG.text)
    assert redis.ask("GET", f"{PREFIX}lease:{turn}") == b"$7\r\nanother\r\n"


def test_one_that_the_store_has_lost_goes_on_for_its_client(stack: ExitStack, redis: RedisServer) -> None:
    relays = Relays(stack, redis.url)
    caller = relays.serve().begin()
    head = caller.head()
    head.body = caller.until(b'word3"')
    assert redis.ask("FLUSHALL") == b"+OK\r\n"
    assert b"word29" in caller.until(b"[DONE]")


@pytest.mark.slow
def test_a_relay_that_was_stopped_for_three_leases_writes_nothing_more(stack: ExitStack, tmp_path: Path) -> None:
    replicas = Replicas(stack, tmp_path, FOR_LONG)
    holder, other = replicas.start(), replicas.start()
    caller = replicas.begin(holder)
    turn = caller.head().value("x-unbroken-turn")
    seen = caller.until(b'word3"')
    holder.pause()
    stopped = time.monotonic()
    replicas.lease_is_over(turn)
    assert not replicas.own(other, "GET", f"/{turn}").whole
    events = f"{PREFIX}events:{turn}"
    before = replicas.redis.ask("XRANGE", events, "-", "+")
    time.sleep(max(0.0, stopped + 3 * LEASE - time.monotonic()))
    holder.go_on()
    poll(lambda: replicas.lab.requests[0].gone, PATIENT)
    seen += caller.rest()
    assert not seen.endswith(b"0\r\n\r\n")
    assert replicas.redis.ask("XRANGE", events, "-", "+") == before
    assert seen.count(b'word7"') <= 1
    assert replicas.asked_upstream == 1


@pytest.mark.slow
def test_one_whose_turn_nobody_took_meanwhile_goes_on(stack: ExitStack, tmp_path: Path) -> None:
    replicas = Replicas(stack, tmp_path, SLOW)
    holder = replicas.start()
    caller = replicas.begin(holder)
    head = caller.head()
    holder.pause()
    replicas.lease_is_over(head.value("x-unbroken-turn"))
    holder.go_on()
    caller._read_chunks(head)
    assert is_whole(head)
    assert is_whole(replicas.own(holder, "GET", f"/{head.value('x-unbroken-turn')}"))
