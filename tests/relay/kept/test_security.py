"""What nobody gets: foreign turns, keys in the store, growth without bound."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from relay.kept.clients import BODY, KEY, OTHER_KEY, RETRY, TEXT, Relays, headers_of, is_whole
from relay.redis_server import RedisServer
from unbroken.lab.answer import ScriptedAnswer
from unbroken.relay.store.redis_scripts import PREFIX
from waiting import poll

QUICK = ScriptedAnswer(text=TEXT)
OTHERS = (OTHER_KEY, "", "short", KEY + "x", KEY.upper(), f"{KEY} {KEY}")
TOKEN = "relay-token-0123456789"


class TestAnotherCredential:
    @pytest.mark.parametrize(
        ("store_url", "key"), [*(("memory", key) for key in OTHERS), ("redis", OTHER_KEY)], indirect=["store_url"]
    )
    def test_reads_attaches_lists_and_ends_nothing(self, relays: Relays, key: str) -> None:
        client = relays.serve()
        turn = client.leave(("idempotency-key", "k1")).value("x-unbroken-turn")
        for method in ("GET", "DELETE"):
            answer = client.own(method, f"/{turn}", key=key)
            assert (answer.status, answer.code) == (404, "no_such_turn")
        assert b"word" not in client.own("GET", key=key).body
        assert is_whole(client.ask(*RETRY, key=key))
        assert is_whole(client.ask(("idempotency-key", "k1"), key=key))
        assert relays.asked_upstream == 3
        assert is_whole(client.collect(turn))

    def test_the_header_in_which_it_is_sent_makes_no_difference_to_its_owner(self, in_memory: Relays) -> None:
        client = in_memory.serve(QUICK)
        turn = client.ask().value("x-unbroken-turn")
        for fields in ([("x-api-key", KEY)], [("api-key", KEY)], [("x-goog-api-key", KEY)]):
            answer = client.connect().ask("GET", f"/_unbroken/turns/{turn}", fields)
            assert is_whole(answer)
        assert is_whole(client.connect().ask("GET", f"/_unbroken/turns/{turn}?key={KEY}"))
        assert client.connect().ask("GET", f"/_unbroken/turns/{turn}?key={OTHER_KEY}").status == 404

    def test_with_an_injected_key_the_token_is_the_credential(self, in_memory: Relays) -> None:
        client = in_memory.serve(token=TOKEN, inject_key=True)
        shown = [("content-type", "application/json"), ("x-unbroken-token", TOKEN), ("authorization", f"Bearer {KEY}")]
        caller = client.connect()
        caller.begin("POST", "/v1/chat/completions", shown, json.dumps(BODY).encode())
        turn = caller.head().value("x-unbroken-turn")
        caller.until(b"word3")
        caller.close()
        assert client.connect().ask("GET", f"/_unbroken/turns/{turn}", headers_of(KEY)).status == 401
        assert is_whole(client.connect().ask("GET", f"/_unbroken/turns/{turn}", headers_of(TOKEN)))

    def test_a_page_of_another_site_reads_nothing(self, in_memory: Relays) -> None:
        client = in_memory.serve(QUICK)
        turn = client.ask(key="").value("x-unbroken-turn")
        answer = client.connect().ask("GET", f"/_unbroken/turns/{turn}", [("origin", "https://evil.example")])
        assert answer.values("access-control-allow-origin") == []
        preflight = [("origin", "https://evil.example"), ("access-control-request-method", "DELETE")]
        assert client.connect().ask("OPTIONS", f"/_unbroken/turns/{turn}", preflight).status == 405


class TestIds:
    def test_they_cannot_be_guessed(self, in_memory: Relays) -> None:
        client = in_memory.serve(QUICK)
        ids = [client.ask().value("x-unbroken-turn") or "" for _ in range(50)]
        secrets = {turn.partition("-")[2] for turn in ids}
        assert len(secrets) == 50
        assert {len(secret) for secret in secrets} == {24}  # 144 bits
        for guess in (ids[0][:8], ids[0][:-1], ids[0] + "x", ids[0].lower(), "*", "%2a", ids[0] + "/", "a" * 5000):
            assert client.own("GET", f"/{guess}").status == 404 or guess == ids[0].lower()

    def test_logs_metrics_and_page_do_not_have_them(self, in_memory: Relays) -> None:
        client = in_memory.serve(QUICK)
        turn = client.ask(key="").value("x-unbroken-turn") or ""
        client.collect(turn, key="")
        client.own("DELETE", f"/{turn}", key="")
        told = json.dumps([client.served.entry(number) for number in range(2)])
        assert turn[:8] in told
        metrics = client.connect().ask("GET", "/_unbroken/metrics").body.decode()
        caller = client.connect()
        caller.begin("GET", "/_unbroken/feed")
        page = caller.until(b"\n\n").decode()
        for text in (told, metrics, page):
            assert turn[9:] not in text


class TestPoisonedStore:
    @pytest.fixture
    def poisoned(self, stack: ExitStack, redis: RedisServer) -> tuple[Relays, RedisServer]:
        return Relays(stack, redis.url), redis

    def test_a_head_cannot_inject_fields(self, poisoned: tuple[Relays, RedisServer]) -> None:
        relays, redis = poisoned
        client = relays.serve(QUICK)
        turn = client.ask().value("x-unbroken-turn")
        poll(lambda: redis.ask("HGET", f"{PREFIX}turn:{turn}", "ending").endswith(b"whole\r\n"))
        redis.ask("DEL", f"{PREFIX}events:{turn}")
        fields = [["x-a", "1\r\nx-injected: 2"], ["bad name", "3"], ["x-b\r\nx-injected", "4"], ["content-length", "1"]]
        redis.ask("XADD", f"{PREFIX}events:{turn}", "0-1", "h", json.dumps([200, fields]))
        redis.ask("XADD", f"{PREFIX}events:{turn}", "5-2", "d", "hello")
        redis.ask("XADD", f"{PREFIX}events:{turn}", "5-3", "e", "whole")
        answer = client.collect(turn)
        assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
        assert answer.values("x-injected") == []
        assert answer.value("x-a") == "1  x-injected: 2"
        assert {name for name, _ in answer.headers} <= {"x-a", "transfer-encoding"}

    @pytest.mark.parametrize("status", ["-1", "0", "101", "999", "1e3", '"200"'])
    def test_a_head_cannot_break_the_framing(self, poisoned: tuple[Relays, RedisServer], status: str) -> None:
        relays, redis = poisoned
        client = relays.serve(QUICK)
        turn = client.ask().value("x-unbroken-turn")
        poll(lambda: redis.ask("HGET", f"{PREFIX}turn:{turn}", "ending").endswith(b"whole\r\n"))
        redis.ask("DEL", f"{PREFIX}events:{turn}")
        redis.ask("XADD", f"{PREFIX}events:{turn}", "0-1", "h", f"[{status}, []]")
        redis.ask("XADD", f"{PREFIX}events:{turn}", "0-3", "e", "whole")
        assert client.collect(turn).status == 502

    def test_bytes_that_are_missing_are_a_cut(self, poisoned: tuple[Relays, RedisServer]) -> None:
        relays, redis = poisoned
        client = relays.serve(QUICK)
        whole = client.ask()
        turn = whole.value("x-unbroken-turn")
        assert is_whole(client.collect(turn))
        first = redis.ask("XRANGE", f"{PREFIX}events:{turn}", "1-0", "+", "COUNT", "1").split(b"\r\n")[3].decode()
        redis.ask("XDEL", f"{PREFIX}events:{turn}", first)
        answer = client.collect(turn)
        assert not answer.whole
        assert whole.body.startswith(answer.body)

    def test_another_owner_in_the_hash_is_believed_nowhere_else(self, poisoned: tuple[Relays, RedisServer]) -> None:
        relays, redis = poisoned
        client = relays.serve(QUICK)
        turn = client.ask().value("x-unbroken-turn")
        assert is_whole(client.collect(turn))
        redis.ask("HSET", f"{PREFIX}turn:{turn}", "owner", "x")  # the one in ``info`` counts
        assert is_whole(client.collect(turn))
        redis.ask("HSET", f"{PREFIX}turn:{turn}", "info", "garbage")
        assert client.collect(turn).status == 404
        assert is_whole(client.ask())


def test_no_key_and_no_prompt_is_in_the_store(stack: ExitStack, redis: RedisServer) -> None:
    relays = Relays(stack, redis.url)
    client = relays.serve()
    body = {**BODY, "messages": [{"role": "user", "content": "the-secret-prompt"}]}
    fields = (("idempotency-key", "the-idempotency-key"), ("x-unbroken-token", TOKEN), ("cookie", "the-cookie"))
    caller = client.begin(*fields, body=body, path=f"/lab/v1/chat/completions?key={OTHER_KEY}")
    caller.until(b"word3")
    caller.close()
    poll(lambda: any(key.startswith(f"{PREFIX}request:") for key in redis.known()))
    kept = redis.everything()
    assert b"word3" in kept
    for secret in (KEY, OTHER_KEY, TOKEN, "the-secret-prompt", "the-idempotency-key", "the-cookie"):
        assert secret.encode() not in kept


class TestGrowth:
    def test_memory_has_a_bound(self, in_memory: Relays) -> None:
        client = in_memory.serve(QUICK, max_kept=100_000)
        for _ in range(100):
            assert is_whole(client.ask())
        assert client.served.relay._keeper._store.size <= 100_000
        listed = client.own("GET").json["turns"]
        assert 5 < len(listed) < 25

    def test_a_turn_that_does_not_fit_goes_on_for_its_client(self, in_memory: Relays) -> None:
        client = in_memory.serve(max_kept=6000)
        caller = client.begin()
        turn = caller.head().value("x-unbroken-turn")
        assert b"word29" in caller.until(b"[DONE]")
        assert client.collect(turn).status == 404

    def test_and_without_its_client_it_ends(self, in_memory: Relays) -> None:
        client = in_memory.serve(max_kept=6000)
        client.leave(after=b"word1")
        poll(lambda: in_memory.lab.requests[0].gone)
        assert len(in_memory.lab.requests[0].sent) < 5000

    def test_turns_without_a_client_count_as_turns(self, in_memory: Relays) -> None:
        client = in_memory.serve(max_turns=2)
        client.leave()
        client.leave()
        assert (refused := client.ask()).status == 503
        assert refused.code == "too_many_turns"

    def test_redis_has_nothing_once_the_time_is_up(self, stack: ExitStack, redis: RedisServer) -> None:
        relays = Relays(stack, redis.url)
        client = relays.serve(keep=0.5)
        for mark in (("idempotency-key", "k1"), RETRY[0]):
            client.leave(*([mark] if mark not in RETRY else []))
            assert is_whole(client.ask(mark))
        assert redis.known()
        poll(lambda: redis.known() <= {"unbroken:layout"})
