"""Turns that outlive their client, and the ways back to them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from relay.kept.clients import BODY, KEY, LONG, OTHER_KEY, RETRY, TEXT, Relays, is_whole, text_in, unchunked
from relay.redis_server import RedisServer
from unbroken.core.policy import Policy
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.fault import Fault
from unbroken.relay.kept.keeper import SETTLE
from unbroken.relay.store.redis_scripts import PREFIX
from waiting import poll

ONCE = Policy(retries=0, replays=0)


class TestByAskingAgain:
    @pytest.mark.parametrize("mark", [RETRY, (("idempotency-key", "k1"),), (("x-unbroken-key", "k1"),)])
    def test_a_retry_gets_the_turn_from_its_first_byte(self, relays: Relays, mark: Any) -> None:
        client = relays.serve()
        before = client.leave(*(mark if mark != RETRY else ()))
        answer = client.ask(*mark)
        assert is_whole(answer)
        assert answer.body.startswith(before.body)
        assert answer.value("x-unbroken-turn") == before.value("x-unbroken-turn")
        assert relays.asked_upstream == 1
        poll(lambda: client.metric("collected") == 1)
        assert client.metric("kept") == 1
        assert {entry["outcome"] for entry in client.served.entries} == {"answered", "collected"}

    def test_an_answer_that_has_ended_since_is_collected(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.002))
        client.leave(after=b"word1")
        assert client.served.entry()["outcome"] == "kept"
        assert is_whole(client.ask(*RETRY))
        assert relays.asked_upstream == 1

    def test_what_is_not_marked_goes_upstream(self, relays: Relays) -> None:
        client = relays.serve()
        client.leave()
        assert is_whole(client.ask())
        assert is_whole(client.ask(("x-stainless-retry-count", "0")))
        assert relays.asked_upstream == 3

    def test_unless_the_relay_is_told_to_attach_whatever_is_identical(self, relays: Relays) -> None:
        client = relays.serve(attach_identical=True)
        client.leave()
        assert is_whole(client.ask())
        assert relays.asked_upstream == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"body": {**BODY, "temperature": 0.5}},
            {"path": "/lab/v1/chat/completions?x=1"},
            {"fields": (("openai-project", "another"),)},
            {"fields": (("openai-organization", "another"),)},
            {"key": OTHER_KEY},
            {"key": ""},
        ],
    )
    def test_another_request_gets_an_answer_of_its_own(self, relays: Relays, other: dict[str, Any]) -> None:
        client = relays.serve()
        client.leave()
        fields = other.get("fields", ())
        given = {name: value for name, value in other.items() if name != "fields"}
        assert is_whole(client.ask(*RETRY, *fields, **given))
        assert relays.asked_upstream == 2

    def test_a_turn_is_given_to_one_of_many(self, relays: Relays) -> None:
        client = relays.serve()
        client.leave()
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda _: client.ask(*RETRY), range(20)))
        assert all(map(is_whole, answers))
        assert len({answer.value("x-unbroken-turn") for answer in answers}) == 20
        assert relays.asked_upstream == 20

    def test_several_may_have_one_key(self, relays: Relays) -> None:
        client = relays.serve()
        mark = ("idempotency-key", "k1")
        first = client.begin(mark)
        first.until(b"word3")
        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(lambda _: client.ask(mark), range(10)))
        assert all(map(is_whole, answers))
        assert relays.asked_upstream == 1
        refused = client.ask(mark, body={**BODY, "temperature": 0.5})
        assert (refused.status, refused.code) == (409, "idempotency_key")
        first.close()
        assert is_whole(client.ask(mark))
        refused = client.ask(mark, body={**BODY, "temperature": 0.5})
        assert (refused.status, refused.code) == (409, "idempotency_key")
        assert is_whole(client.ask(mark, key=OTHER_KEY))
        assert relays.asked_upstream == 2

    def test_a_collector_that_leaves_too_gives_it_back(self, relays: Relays) -> None:
        client = relays.serve()
        client.leave()
        second = client.begin(*RETRY)
        second.until(b"word5")
        second.close()
        assert client.served.entry()["outcome"] == "left"
        assert is_whole(client.ask(*RETRY))
        assert relays.asked_upstream == 1

    def test_who_reads_it_by_position_gives_nobodys_claim_back(self, relays: Relays) -> None:
        client = relays.serve()
        turn = client.leave().value("x-unbroken-turn")
        second = client.begin(*RETRY)
        second.until(b"word5")
        third = client.connect()
        third.begin("GET", f"/_unbroken/turns/{turn}", [("authorization", f"Bearer {KEY}")])
        third.until(b"word5")
        third.close()
        assert client.served.entry()["outcome"] == "left"
        assert is_whole(client.ask(*RETRY))
        assert relays.asked_upstream == 2
        assert b"word29" in second.until(b"[DONE]")

    def test_a_retry_that_comes_at_once(self, relays: Relays) -> None:
        client = relays.serve()
        for _ in range(4):
            first = client.begin()
            first.until(b"word3")
            first.close()
            assert is_whole(client.ask(*RETRY))
        assert relays.asked_upstream == 4

    def test_a_failed_turn_is_never_given_to_anybody(self, relays: Relays) -> None:
        client = relays.serve(LONG, [Fault("rst", "after_characters", offset=60)], policy=ONCE)
        client.leave(("idempotency-key", "k1"))
        assert client.served.entry()["outcome"] == "cut"
        assert is_whole(client.ask(*RETRY))
        assert is_whole(client.ask(("idempotency-key", "k1")))
        assert relays.asked_upstream == 3

    def test_nor_is_an_error_of_the_provider(self, relays: Relays) -> None:
        client = relays.serve(LONG, [Fault("status", "before_headers", status=400)], policy=ONCE)
        mark = ("idempotency-key", "k1")
        assert client.ask(mark).status == 400
        assert is_whole(client.ask(mark))
        assert relays.asked_upstream == 2

    def test_a_client_that_had_the_whole_answer_has_not_lost_it(self, relays: Relays) -> None:
        client = relays.serve(LONG, [Fault("stall", "after_finish", seconds=0.3)])
        client.leave(after=b'"finish_reason": "stop"')
        assert client.served.entry()["outcome"] == "answered"
        assert is_whole(client.ask(*RETRY))
        assert relays.asked_upstream == 2

    def test_an_answer_in_one_piece_is_collected_too(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, think=1.0))
        body = {**BODY, "stream": False}
        first = client.begin(body=body)
        poll(lambda: relays.asked_upstream == 1)
        first.close()
        answer = client.ask(*RETRY, body=body)
        assert answer.json["choices"][0]["message"]["content"] == "".join(TEXT)
        assert relays.asked_upstream == 1


class TestHowLong:
    def test_a_turn_that_nobody_comes_for_is_ended_at_the_upstream(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.2), keep=0.3)
        client.leave(after=b"word1")
        poll(lambda: relays.lab.requests[0].gone)
        assert client.served.entry()["outcome"] == "left"
        assert len(relays.lab.requests[0].sent) < 3000
        assert client.metric("kept") == 1
        poll(lambda: client.metric("dropped") == 1)
        assert client.metric("collected") == 0

    def test_it_goes_on_for_whoever_reads_it(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.06), keep=1.0)
        turn = client.leave(after=b"word1").value("x-unbroken-turn")
        answer = client.collect(turn)
        assert is_whole(answer)
        assert client.metric("dropped") == 0

    def test_without_keeping_everything_is_as_before(self, in_memory: Relays) -> None:
        client = in_memory.serve(keep=0.0)
        first = client.begin()
        head = first.head()
        first.until(b"word3")
        first.close()
        poll(lambda: in_memory.lab.requests[0].gone)
        assert client.served.entry()["outcome"] == "left"
        assert len(head.value("x-unbroken-turn") or "") == 8
        assert head.value("x-unbroken-keep") is None
        assert client.own("GET").status == 404
        assert client.own("DELETE", "/x").status == 405

    def test_a_client_that_accepts_nothing_loses_its_connection_and_not_its_turn(self, in_memory: Relays) -> None:
        text = ["x" * 20_000] * 300
        client = in_memory.serve(ScriptedAnswer(text=text), send_timeout=0.3)
        caller = client.begin()
        turn = caller.head().value("x-unbroken-turn")
        assert client.served.entry()["outcome"] == "kept"
        answer = client.collect(turn)
        assert answer.whole
        assert text_in(answer.body) == "".join(text)

    def test_a_request_that_is_refused_leaves_no_turn_that_runs(self, relays: Relays) -> None:
        client = relays.serve()
        assert client.ask(("x-unbroken-hold", "nonsense")).status == 400
        assert [turn["state"] for turn in client.own("GET").json["turns"]] == ["cut"]
        assert relays.asked_upstream == 0

    def test_a_relay_that_stops_does_not_wait_for_what_nobody_can_collect(self, in_memory: Relays) -> None:
        client = in_memory.serve(ScriptedAnswer(text=TEXT, gap=1.0), grace=8.0)
        client.leave(after=b"word0")
        client.served.stop()
        client.served.join()
        assert client.served.entry()["outcome"] == "left"
        assert len(in_memory.lab.requests[0].sent) < 2000


class TestByPosition:
    def test_every_position_leads_to_the_same_bytes(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.002))
        whole = client.ask()
        turn = whole.value("x-unbroken-turn")
        assert whole.value("x-unbroken-keep") == "20"
        for after in (0, 1, 100, len(whole.body) - 1, len(whole.body)):
            answer = client.collect(turn, after)
            assert (answer.status, answer.whole, answer.body) == (200, True, whole.body[after:])
        assert client.collect(turn, len(whole.body) + 1).status == 416
        assert [client.own("GET", f"/{turn}?after={text}").status for text in ("-1", "x", "", "9" * 30)] == [400] * 4
        assert relays.asked_upstream == 1

    def test_a_reader_that_is_cut_again_and_again_has_each_byte_once(self, relays: Relays) -> None:
        client = relays.serve()
        caller = client.begin()
        head = caller.head()
        body = b""
        for number in (3, 9, 15, 21):
            body += unchunked(caller.until(b"word%d" % number))
            caller.close()
            caller = client.connect()
            target = f"/_unbroken/turns/{head.value('x-unbroken-turn')}?after={len(body)}"
            caller.begin("GET", target, [("authorization", f"Bearer {KEY}")])
            assert caller.head().status == 200
        body += unchunked(caller.until(b"\r\n0\r\n\r\n"))
        whole = client.collect(head.value("x-unbroken-turn"))
        assert is_whole(whole)
        assert whole.body == body
        assert relays.asked_upstream == 1

    def test_heartbeats_are_bytes_like_others(self, relays: Relays) -> None:
        client = relays.serve(ScriptedAnswer(text=TEXT, think=0.5), heartbeat=0.05)
        caller = client.begin()
        head = caller.head()
        caller.until(b": unbroken")
        caller.close()
        turn = head.value("x-unbroken-turn")
        first, second = client.collect(turn), client.collect(turn)
        assert first.body == second.body
        assert first.body.count(b": unbroken") > 3
        assert text_in(first.body) == "".join(TEXT)

    def test_it_ends_as_the_turn_ends(self, relays: Relays) -> None:
        client = relays.serve(LONG, [Fault("rst", "after_characters", offset=60)], policy=ONCE)
        turn = client.leave().value("x-unbroken-turn")
        answer = client.collect(turn)
        assert not answer.whole
        assert b"stream_cut" in answer.body
        answer = client.collect(turn)
        assert not answer.whole

    def test_a_request_without_a_credential_has_this_way_alone(self, relays: Relays) -> None:
        client = relays.serve()
        turn = client.leave(key="ollama").value("x-unbroken-turn")
        assert is_whole(client.ask(*RETRY, key="ollama"))
        assert relays.asked_upstream == 2
        assert is_whole(client.collect(turn, key=""))
        listed = client.own("GET", key="ollama")
        assert (listed.status, listed.code) == (403, "no_credential")

    def test_events_with_ids(self, relays: Relays) -> None:
        client = relays.serve()
        caller = client.begin(("x-unbroken-resumable", "true"))
        turn = caller.head().value("x-unbroken-turn")
        seen = caller.until(b"word5")
        caller.close()
        last = int(seen.rpartition(b"\nid: ")[2].split()[0])
        wants = ("x-unbroken-resumable", "true")
        rest = client.own("GET", f"/{turn}", wants, ("last-event-id", str(last)))
        assert text_in(rest.body) == "".join(TEXT[5:])
        whole = client.own("GET", f"/{turn}", wants)
        ids = [int(line[4:]) for line in whole.body.splitlines() if line.startswith(b"id: ")]
        assert last in ids
        assert ids == sorted(set(ids))
        plain = client.collect(turn)
        assert ids[-1] == len(plain.body)
        for position in ids:
            assert plain.body[:position].endswith(b"\n\n")

    def test_turns_are_listed_and_ended(self, relays: Relays) -> None:
        client = relays.serve()
        turn = client.leave().value("x-unbroken-turn")
        listed = client.own("GET")
        assert listed.value("cache-control") == "no-store"
        (known,) = listed.json["turns"]
        assert known["id"] == turn
        assert (known["state"], known["client_left"], known["upstream"]) == ("running", True, "lab")
        assert client.own("GET", key=OTHER_KEY).json == {"turns": []}
        assert client.own("DELETE", f"/{turn}", key=OTHER_KEY).status == 404
        assert client.own("PUT", f"/{turn}").status == 405
        assert client.own("DELETE").status == 405
        assert client.own("DELETE", f"/{turn}").status == 204
        poll(lambda: relays.lab.requests[0].gone)
        assert client.own("GET").json == {"turns": []}
        assert client.own("DELETE", f"/{turn}").status == 404
        assert client.served.entry(0)["outcome"] in ("rejected", "left")

    def test_a_turn_that_is_ended_breaks_the_response_to_its_client(self, relays: Relays) -> None:
        client = relays.serve()
        caller = client.begin()
        turn = caller.head().value("x-unbroken-turn")
        caller.until(b"word3")
        assert client.own("DELETE", f"/{turn}").status == 204
        assert b"0\r\n\r\n" not in caller.rest()
        poll(lambda: relays.lab.requests[0].gone)


class TestThroughAStoreThatIsShared:
    def test_another_relay_hands_the_turn_over(self, stack: Any, redis: RedisServer) -> None:
        relays = Relays(stack, redis.url)
        client = relays.serve()
        other = relays.another()
        before = client.leave()
        poll(lambda: any(name.startswith(f"{PREFIX}request:") for name in redis.known()))  # it is written soon
        answer = other.ask(*RETRY)
        assert is_whole(answer)
        assert answer.body.startswith(before.body)
        assert is_whole(other.collect(before.value("x-unbroken-turn")))
        assert relays.asked_upstream == 1

    def test_a_turn_that_another_relay_reads_goes_on(self, stack: Any, redis: RedisServer) -> None:
        relays = Relays(stack, redis.url)
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.06), keep=1.0)
        other = relays.another(keep=1.0)
        turn = client.leave(after=b"word1").value("x-unbroken-turn")
        assert is_whole(other.collect(turn))

    @pytest.mark.parametrize("is_silent", [True, False])
    def test_a_turn_is_ended_by_another_relay_while_its_client_is_there(
        self, stack: Any, redis: RedisServer, is_silent: bool
    ) -> None:
        relays = Relays(stack, redis.url)
        endless = ScriptedAnswer(text=TEXT * 1000, gap=0.02)
        client = relays.serve(endless, [Fault("stall", "after_token")] if is_silent else [], lease=600.0)
        caller = client.begin()
        turn = caller.head().value("x-unbroken-turn")
        other = relays.another()
        poll(lambda: other.own("DELETE", f"/{turn}").status == 204)  # it is written soon
        caller.rest()
        poll(lambda: relays.lab.requests[0].gone)
        assert (entry := client.served.entry())["outcome"] == "left", entry
        assert other.collect(turn).status == 404

    def test_a_turn_of_a_relay_that_is_no_more_ends_as_a_cut(self, stack: Any, redis: RedisServer) -> None:
        relays = Relays(stack, redis.url)
        client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.2), grace=0.0)
        turn = client.leave(after=b"word1").value("x-unbroken-turn")
        client.served.close()
        answer = relays.another().collect(turn)
        assert not answer.whole
        assert b"relay_stopped" in answer.body

    @pytest.mark.slow  # it waits until the store is tried again
    def test_a_store_that_fails_fails_no_turn(self, stack: Any) -> None:
        with RedisServer() as server:
            relays = Relays(stack, server.url)
            client = relays.serve()
            caller = client.begin()
            caller.until(b"word3")
            server.stop()
            assert b"word29" in caller.until(b"[DONE]")
            poll(lambda: client.served.relay.recorder.store_problem)
            assert is_whole(client.ask())
            assert is_whole(client.ask(*RETRY))
            assert client.own("GET").status == 503
            server.start()
            poll(lambda: not client.served.relay.recorder.store_problem)
            client.leave()
            assert is_whole(client.ask(*RETRY))
            assert relays.asked_upstream == 4


def test_nothing_is_left_behind(relays: Relays) -> None:
    client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.001), keep=0.5)
    client.leave(after=b"word1")
    client.ask(*RETRY)
    tasks = client.served.tasks()
    for _ in range(5):
        client.leave(after=b"word1")
        client.ask(*RETRY)
        client.begin(*RETRY).close()
    poll(lambda: client.served.relay.recorder.live == {})
    poll(lambda: client.served.tasks() <= tasks)
    poll(lambda: client.served.relay._budget.turns == 0)


def test_a_store_that_takes_its_time_with_a_claim(in_memory: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
    client = in_memory.serve()
    client.leave()
    store = client.served.relay._keeper._store
    claim = store.claim

    async def slowly(request: str) -> str | None:
        found = await claim(request)
        await anyio.sleep(2 * SETTLE)
        return found

    monkeypatch.setattr(store, "claim", slowly)
    assert is_whole(client.ask(*RETRY))
    assert in_memory.asked_upstream == 1
