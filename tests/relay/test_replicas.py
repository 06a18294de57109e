"""What relays that share a store show together: on the page of each, and what a poisoned store can do to it."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from relay.conftest import stack
from relay.feeds import Feed
from relay.kept.clients import KEY, Client, Relays, is_whole
from relay.records import answer, cut, turn
from relay.redis_server import RedisServer
from relay.serving import poll
from unbroken.lab import Fault
from unbroken.relay import replicas
from unbroken.relay.recorder import CUTS, RECENT, Recorder, Snapshot
from unbroken.relay.replicas import Publication, Replicas
from unbroken.relay.store.contract import MAX_PUBLISHED, StoreError
from unbroken.relay.store.memory import MemoryStore
from unbroken.relay.store.redis_scripts import PREFIX

__all__ = ["stack"]


@pytest.fixture
def relays(stack: ExitStack, redis: RedisServer) -> Relays:
    """Starts relays with one Redis."""
    return Relays(stack, redis.url)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "EVERY", 0.05)
    monkeypatch.setattr(replicas, "LOOK_EVERY", 0.05)


def two(relays: Relays, **given: Any) -> tuple[Client, Client]:
    one = relays.serve(**given)
    return one, relays.another()


class TestPage:
    def test_is_that_of_all_relays(self, relays: Relays) -> None:
        one, other = two(relays)
        assert is_whole(one.ask())
        assert is_whole(one.ask())
        assert is_whole(other.ask())
        for client in (one, other):
            hello = Feed(client.connect()).next("hello", lambda told: told["shows"] == "2 relays together")
            assert (hello["totals"]["turns"], hello["totals"]["answered"], len(hello["recent"])) == (3, 3, 3)
            assert hello["upstreams"] == ["lab"]
            ended = [found["started"] + found["elapsed"] for found in hello["recent"]]
            assert ended == sorted(ended, reverse=True)

    def test_shows_the_turns_of_another_relay_as_they_run_and_end(self, relays: Relays) -> None:
        one, other = two(relays, faults=[Fault("stall", "after_token")])
        feed = Feed(other.connect())
        feed.next("hello", lambda told: told["shows"] == "2 relays together")
        caller = one.begin()
        turn_id = str(caller.head().value("x-unbroken-turn"))
        (running,) = feed.next("live", lambda told: told["running"] == 1)["live"]
        assert running["id"] == turn_id[:8]
        assert one.own("DELETE", f"/{turn_id}").status == 204
        ended = feed.next("ended")
        assert (ended["turn"]["id"], ended["totals"]["turns"]) == (turn_id[:8], 1)
        assert feed.next("live", lambda told: told["running"] == 0)["live"] == []
        assert len(feed.named("ended")) == 1

    def test_leaves_out_a_relay_that_is_gone(self, relays: Relays, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replicas, "SHOWN_FOR", 0.5)
        one, other = two(relays)
        assert is_whole(one.ask())
        feed = Feed(other.connect())
        feed.next("hello", lambda told: told["totals"]["turns"] == 1)
        one.served.close()
        alone = feed.next("hello", lambda told: told["totals"]["turns"] == 0)
        assert (alone["shows"], alone["recent"]) == ("", [])

    def test_says_that_the_store_is_away_and_shows_this_relay(self, stack: ExitStack) -> None:
        with RedisServer() as server:
            one, other = two(Relays(stack, server.url))
            for client in (one, other):
                assert is_whole(client.ask())
            feed = Feed(other.connect())
            feed.next("hello", lambda told: told["totals"]["turns"] == 2)
            server.stop()
            alone = feed.next("hello", lambda told: told["totals"]["turns"] == 1)
            assert alone["shows"].startswith("this relay alone: the store cannot be read (")
            assert is_whole(other.ask())
            assert feed.next("ended")["totals"]["turns"] == 2
            server.start()
            feed.next("hello", lambda told: told["totals"]["turns"] == 3)

    def test_of_a_relay_without_such_a_store_is_its_own(self, stack: ExitStack) -> None:
        one, other = two(Relays(stack, "memory://"))
        assert is_whole(one.ask())
        hello = Feed(other.connect()).next("hello")
        assert hello["totals"]["turns"] == 0
        assert "shows" not in hello


class TestPublished:
    def test_is_nothing_while_no_page_is_open(self, relays: Relays, redis: RedisServer) -> None:
        one, _ = two(relays)
        assert is_whole(one.ask())
        assert not shown(redis)
        with one.connect() as caller:
            Feed(caller).next("hello")
            poll(lambda: len(shown(redis)) == 3)
            assert all(redis.ask("PTTL", name)[1:2] not in b"-0" for name in shown(redis))

    def test_has_no_key_and_no_content(self, relays: Relays, redis: RedisServer) -> None:
        one, _ = two(relays)
        assert is_whole(one.ask(path="/v1/chat/completions?secret=query"))
        Feed(one.connect()).next("hello")
        poll(lambda: len(shown(redis)) == 3)
        published = b"".join(redis.ask("GET", name) for name in shown(redis) if name != f"{PREFIX}shown")
        assert b'"turns":1' in published
        assert b"/v1/chat/completions" in published
        for secret in (KEY.encode(), b"word1", b"secret"):
            assert secret not in published

    def test_is_bounded(self) -> None:
        recorder = Recorder()
        for number in range(RECENT):
            record = turn(*[cut(n + 1, detail="x" * 300) for n in range(20)], answer(21), id=f"{number:08x}")
            recorder.end(record)
        whole = recorder.snapshot("1", ("lab",))
        assert (len(whole.recent), len(whole.cuts)) == (RECENT, CUTS)
        data = replicas._encoded(Publication("a", whole))
        assert MAX_PUBLISHED / 4 < len(data) <= MAX_PUBLISHED
        found = replicas.read(data)
        assert found
        assert found.snapshot.totals.turns == RECENT
        assert found.snapshot.recent == whole.recent[: len(found.snapshot.recent)]
        assert found.snapshot.cuts == whole.cuts[-len(found.snapshot.cuts) :]

    def test_is_not_written_again_unless_it_has_changed(self) -> None:
        recorder, store = Recorder(), Counting()

        async def main() -> None:
            async with Replicas(store, own(recorder)):
                await store.published()
                await until(lambda: store.published_count == 1)
                looks = store.watched_count
                await until(lambda: store.watched_count > looks + 3)
                assert store.published_count == 1
                recorder.end(turn())
                await until(lambda: store.published_count == 2)

        asyncio.run(main())


def shown(redis: RedisServer) -> list[str]:
    return [name for name in redis.known() if name.startswith(f"{PREFIX}shown")]


class Counting(MemoryStore):
    """A store that counts what is asked of it; it may be away."""

    def __init__(self) -> None:
        super().__init__(30.0, 1_000_000)
        self.watched_count = self.published_count = 0
        self.hangs = False

    async def watched(self) -> bool:
        self.watched_count += 1
        return await super().watched()

    async def publish(self, name: str, data: bytes, seconds: float) -> None:
        self.published_count += 1
        await super().publish(name, data, seconds)

    async def published(self) -> list[bytes]:
        if self.hangs:
            await asyncio.sleep(60)
            raise StoreError("it does not answer")
        return await super().published()


def own(recorder: Recorder) -> Any:
    async def snapshot(seen: dict[str, int]) -> Snapshot:
        found = recorder.snapshot("1", ("lab",), seen.get("", 0))
        seen[""] = found.totals.turns
        return found

    return snapshot


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_store_that_hangs_holds_up_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "FIRST_LOOK", 0.05)
    recorder, store = Recorder(), Counting()
    recorder.end(turn())
    store.hangs = True

    async def main() -> None:
        async with Replicas(store, own(recorder)) as together, asyncio.timeout(30):
            assert (await together.gather({})).totals.turns == 1

    asyncio.run(main())


def publication(**changed: Any) -> bytes:
    """A publication of one ended turn, with other values in some places."""
    recorder = Recorder()
    recorder.end(turn(cut(), answer(2)))
    plain = msgspec.to_builtins(Publication("other", recorder.snapshot("1", ("lab",))))
    plain["snapshot"].update(changed)
    return json.dumps(plain).encode()


def record(**changed: Any) -> list[Any]:
    return [{**msgspec.to_builtins(turn()), **changed}]


POISON = {
    "nothing": b"",
    "garbage": b"\xff\x00garbage",
    "nested": b"[" * 100_000,
    "another kind": b'{"name": 1, "snapshot": []}',
    "no name": b"{}",
    "infinite": publication(started=1.0).replace(b"1.0", b"1e999"),
    "endless": publication(running=10**30),
    "negative": publication(totals={"turns": -5}),
    "a moment that is none": publication(recent=record(started=1e15)),
    "text for a number": publication(recent=record(elapsed="<script>")),
    "an outcome that is none": publication(recent=record(outcome="<script>")),
    "a bare word": publication(live=["x"]),
}


class TestPoisoned:
    def test_a_publication_is_read(self) -> None:
        found = replicas.read(publication())
        assert found
        assert found.snapshot.recent == (turn(cut(), answer(2)),)

    @pytest.mark.parametrize("kind", POISON)
    def test_is_ignored(self, kind: str) -> None:
        assert replicas.read(POISON[kind]) is None

    def test_leaves_the_page_as_it_is(self, relays: Relays, redis: RedisServer) -> None:
        client = relays.serve()
        assert is_whole(client.ask())
        names = [*POISON, "huge", "a list"]
        for kind, data in POISON.items():
            redis.ask("SET", f"{PREFIX}shown:{kind}", data.decode("latin-1"))
        redis.ask("SETRANGE", f"{PREFIX}shown:huge", str(MAX_PUBLISHED * 4), "x")
        redis.ask("LPUSH", f"{PREFIX}shown:a list", "x")
        for name in names:
            redis.ask("ZADD", f"{PREFIX}shown", "9e15", name)
        for _ in range(3):
            hello = Feed(client.connect()).next("hello")
            assert (hello["shows"], hello["totals"]["turns"]) == ("", 1)
        redis.ask("DEL", f"{PREFIX}shown")
        redis.ask("LPUSH", f"{PREFIX}shown", "x")
        assert Feed(client.connect()).next("hello")["totals"]["turns"] == 1
