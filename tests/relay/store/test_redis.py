"""A real Redis that is wrong, away, slow, full or poisoned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.redis_server import RedisServer
from unbroken.errors import UsageError
from unbroken.relay.store.contract import HEAD, StoreError, TurnInfo, TurnPart, TurnState
from unbroken.relay.store.redis_scripts import PREFIX
from unbroken.relay.store.redis_store import RedisStore
from wire.servers import RawServer

SOON = 30.0


def opening(url: str, **given: Any) -> str:
    """Why a store does not open; it must say so soon."""

    async def main() -> str:
        store = RedisStore(url, 30.0, **given)
        try:
            async with asyncio.timeout(SOON):
                await store.open()
        except StoreError as exc:
            return str(exc)
        await store.aclose()
        return ""

    return asyncio.run(main())


def with_store(server: RedisServer, scenario: Callable[[RedisStore], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        store = RedisStore(server.url, 30.0, **given)
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(main())


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.005)


async def found(store: RedisStore, turn_id: str, size: int) -> TurnState:
    async with asyncio.timeout(SOON):
        while (state := await store.find(turn_id)) is None or state.size < size:
            await asyncio.sleep(0.005)
    return state


# At the start


@pytest.mark.parametrize(
    "url",
    ["http://x", "redis://", "unix://", "redis://:secret@h:port/0", "redis://:secret@[h/0", "memory:/", "file:///x"],
)
def test_a_url_that_leads_nowhere_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        RedisStore(url, 30.0)
    assert "secret" not in str(raised.value)


def test_nobody_listens(tmp_path: Path) -> None:
    assert "cannot be reached" in opening(f"unix://{tmp_path}/none.sock")
    assert "cannot be reached" in opening("redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"*1000000000\r\n", b""]
)
def test_something_else_listens(answer: bytes) -> None:
    def script(sock: Any) -> None:
        sock.recv(4096)
        sock.sendall(answer)

    with RawServer(script) as server:
        said = opening(f"redis://:secret@127.0.0.1:{server.port}/0")
    assert said
    assert "secret" not in said


def test_it_accepts_and_says_nothing(redis: RedisServer) -> None:
    redis.pause()
    try:
        assert opening(redis.url, answer_within=0.2) == "it does not answer"
    finally:
        redis.go_on()


def test_a_password_is_missing_or_wrong() -> None:
    with RedisServer("--requirepass", "right") as server:
        assert opening(server.url) == "it asks for a password"
        assert opening(f"unix://:wrong@{server.path}") == "it refuses the password"
        assert opening(f"unix://:right@{server.path}") == ""


@contextmanager
def configured(server: RedisServer, name: str, value: str, usual: str) -> Iterator[None]:
    assert server.ask("CONFIG", "SET", name, value) == b"+OK\r\n"
    try:
        yield
    finally:
        assert server.ask("CONFIG", "SET", name, usual) == b"+OK\r\n"


def test_it_is_full(redis: RedisServer) -> None:
    with configured(redis, "maxmemory", "1", "0"):
        assert opening(redis.url) == "it is full (maxmemory)"


def test_it_is_a_replica(redis: RedisServer) -> None:
    assert redis.ask("REPLICAOF", "127.0.0.1", "1") == b"+OK\r\n"
    try:
        assert "it " in opening(redis.url)
    finally:
        assert redis.ask("REPLICAOF", "NO", "ONE") == b"+OK\r\n"


def test_its_user_may_not_do_what_is_needed(redis: RedisServer) -> None:
    rights = ("ACL", "SETUSER", "guest", "on", ">word", "~unbroken:*", "+@all", "-eval", "-evalsha", "-script")
    assert redis.ask(*rights) == b"+OK\r\n"
    assert opening(f"unix://guest:word@{redis.path}") == "its user may not do what is needed"
    assert redis.ask("ACL", "SETUSER", "guest", "+eval", "+evalsha", "+script") == b"+OK\r\n"
    assert opening(f"unix://guest:word@{redis.path}") == ""


def test_another_version_uses_it(redis: RedisServer) -> None:
    redis.ask("SET", "unbroken:layout", "2")
    assert "layout '2' instead of 1" in opening(redis.url)
    redis.ask("DEL", "unbroken:layout")
    redis.ask("LPUSH", "unbroken:layout", "garbage")
    assert "WRONGTYPE" in opening(redis.url)


# Later


def test_what_could_not_be_written_is_written_later(redis: RedisServer) -> None:
    problems: list[str] = []

    async def scenario(store: RedisStore) -> None:
        writer = store.begin(TurnInfo(id="t"), lambda: None)
        writer.append(b"one")
        await found(store, "t", 3)
        with configured(redis, "maxmemory", "1", "0"):
            writer.append(b"two")
            await eventually(lambda: problems == ["it is full (maxmemory)"])
            assert store.problem
            assert not writer.lost
        writer.append(b"three")
        await eventually(lambda: not store.problem)
        assert (await store.read("t", 0, SOON)) == TurnPart(b"onetwothree")
        assert problems == ["it is full (maxmemory)", ""]

    with_store(redis, scenario, on_problem=problems.append)


def test_a_server_that_was_started_anew_has_lost_its_turns() -> None:
    lost: list[str] = []

    async def scenario(store: RedisStore) -> None:
        writer = store.begin(TurnInfo(id="t"), lambda: lost.append("t"))
        writer.append(b"one")
        await found(store, "t", 3)
        server.stop()
        writer.append(b"two")
        await eventually(lambda: store.problem)
        with pytest.raises(StoreError):
            await store.read("t", 0, 0.1)
        server.start()
        await eventually(lambda: lost == ["t"])
        assert await store.read("t", 0, 0.01) is None
        other = store.begin(TurnInfo(id="u"), lambda: None)
        other.append(b"new")
        assert await store.read("u", 0, SOON) == TurnPart(b"new")

    with RedisServer() as server:
        with_store(server, scenario)


def test_a_slow_server_holds_nobody_up_and_memory_is_bounded(redis: RedisServer) -> None:
    lost: list[str] = []

    async def scenario(store: RedisStore) -> None:
        store._queue._max_waiting = 100_000
        writer = store.begin(TurnInfo(id="t"), lambda: lost.append("t"))
        writer.append(b"one")
        await found(store, "t", 3)
        redis.pause()
        try:
            for _ in range(200):
                writer.append(b"x" * 1000)
                await asyncio.sleep(0)
            assert lost == ["t"]
            assert "keep up" in writer.lost
            assert store._queue._waiting == 0
        finally:
            redis.go_on()

    with_store(redis, scenario)


def test_what_is_sent_again_because_its_answer_was_lost_changes_nothing(redis: RedisServer) -> None:
    async def scenario(store: RedisStore) -> None:
        writer = store.begin(TurnInfo(id="t", request="r"), lambda: None)
        writer.append(b"one")
        writer.leave()
        writer.append(b"two")
        writer.close("whole")
        calls = writer.take()
        await found(store, "t", 6)
        for since in (0, 1, 2):
            assert await store._asking.run_all(calls[since:]) == [b"ok"] * (len(calls) - since)
        assert await store.read("t", 0, SOON) == TurnPart(b"onetwo")
        assert await store.read("t", 6, SOON) == TurnPart(ending="whole")
        state = await store.find("t")
        assert state is not None
        assert not state.is_written or state.ending == "whole"

    with_store(redis, scenario)


def test_one_turn_of_a_dead_relay_ends_as_a_cut(redis: RedisServer) -> None:
    async def main() -> None:
        dead = RedisStore(redis.url, 30.0, lease=0.2, renew=60.0)
        await dead.open()
        dead.begin(TurnInfo(id="t"), lambda: None).append(b"half")
        await dead.aclose()
        store = RedisStore(redis.url, 30.0, lease=0.2)
        await store.open()
        try:
            assert await store.read("t", 0, 1.0) == TurnPart(b"half")
            async with asyncio.timeout(SOON):
                while (part := await store.read("t", 4, 0.05)) == TurnPart():
                    pass
            assert part == TurnPart(ending="cut")
        finally:
            await store.aclose()

    asyncio.run(main())


def test_all_readers_share_one_connection(redis: RedisServer) -> None:
    async def scenario(store: RedisStore) -> None:
        writers = [store.begin(TurnInfo(id=f"t{number}"), lambda: None) for number in range(50)]
        readers = [asyncio.create_task(store.read(f"t{number % 50}", 0, SOON)) for number in range(1000)]
        await asyncio.sleep(0.1)
        assert redis.ask("CLIENT", "LIST").count(b"id=") - 1 == 3
        for number, writer in enumerate(writers):
            writer.append(b"%d" % number)
        assert await asyncio.gather(*readers) == [TurnPart(b"%d" % (number % 50)) for number in range(1000)]
        assert redis.ask("CLIENT", "LIST").count(b"id=") - 1 == 3

    with_store(redis, scenario)


def test_every_key_expires(redis: RedisServer) -> None:
    async def scenario(store: RedisStore) -> None:
        for number in range(3):
            writer = store.begin(TurnInfo(id=f"t{number}", owner="o", request="r", key="k"), lambda: None)
            writer.head(200, ())
            writer.append(b"x")
            writer.leave()
            if number:
                writer.close("whole")
        await found(store, "t2", 1)
        await eventually(lambda: store._queue._is_idle.is_set())
        await store.touch("t1")
        assert await store.claim("r")
        keys = redis.known()
        assert len(keys) == 11
        assert [key for key in keys if redis.ask("PTTL", key) == b":-1\r\n"] == []

    with_store(redis, scenario)


# Poisoned


@pytest.mark.parametrize(
    ("entries", "read"),
    [
        ([("3-2", "d", "abc"), ("9-2", "d", "xyz")], [b"abc", "cut"]),  # a hole
        ([("3-2", "d", "abcdef")], ["cut"]),  # more than there can be
        ([("3-2", "d", "abc"), ("7-3", "e", "whole")], [b"abc", "cut"]),  # an end further behind
        ([("3-2", "d", "abc"), ("3-3", "e", "splendid")], [b"abc", "cut"]),
        ([("3-2", "x", "abc")], ["cut"]),
        ([("3-7", "d", "abc")], ["cut"]),
        ([("3-2", "d", "abc"), ("3-3", "e", "whole")], [b"abc", "whole"]),  # as it should be
    ],
)
def test_a_poisoned_stream_ends_as_a_cut(redis: RedisServer, entries: list[tuple[str, ...]], read: list[Any]) -> None:
    async def scenario(store: RedisStore) -> None:
        store.begin(TurnInfo(id="t"), lambda: None)
        await found(store, "t", 0)
        for entry in entries:
            assert redis.ask("XADD", f"{PREFIX}events:t", *entry).startswith(b"$")
        at, came = 0, []
        for _ in read:
            part = await store.read("t", at, 1.0)
            assert part is not None
            came.append(part.data or part.ending)
            at += len(part.data)
        assert came == read

    with_store(redis, scenario)


@pytest.mark.parametrize(
    "head", ["", "null", "[]", "[200]", '["200", []]', "[200, [[1, 2]]]", "\\xff", '[200, [["\u1234", ""]]]']
)
def test_a_poisoned_head_is_none(redis: RedisServer, head: str) -> None:
    async def scenario(store: RedisStore) -> None:
        store.begin(TurnInfo(id="t"), lambda: None)
        await found(store, "t", 0)
        redis.ask("XADD", f"{PREFIX}events:t", "0-1", "h", head)
        assert await store.read("t", HEAD, 1.0) == TurnPart(ending="cut")

    with_store(redis, scenario)


@pytest.mark.parametrize("info", ["", "null", "{}", '{"id": 7}', '{"id": "u"}', "[[[["])
def test_a_poisoned_turn_is_not_there(redis: RedisServer, info: str) -> None:
    async def scenario(store: RedisStore) -> None:
        store.begin(TurnInfo(id="t", owner="o", request="r", key="k"), lambda: None).leave()
        await found(store, "t", 0)
        await eventually(lambda: store._queue._is_idle.is_set())
        redis.ask("HSET", f"{PREFIX}turn:t", "info", info)
        assert await store.find("t") is None
        assert await store.keyed("k") is None
        assert await store.turns("o") == []

    with_store(redis, scenario)


@pytest.mark.parametrize("kind", ["turn", "events", "lease", "owner", "request", "running", "key"])
def test_keys_of_another_type_concern_one_turn_alone(redis: RedisServer, kind: str) -> None:
    async def scenario(store: RedisStore) -> None:
        name = {"owner": "o", "request": "r", "running": "r", "key": "k"}.get(kind, "bad")
        redis.ask("DEL", f"{PREFIX}{kind}:{name}")
        redis.ask(
            "GEOADD" if kind == "lease" else "PFADD",
            f"{PREFIX}{kind}:{name}",
            *(("1", "2", "x") if kind == "lease" else "x"),
        )
        bad = store.begin(TurnInfo(id="bad", owner="o", request="r", key="k"), lambda: None)
        good = store.begin(TurnInfo(id="good"), lambda: None)
        waiting = asyncio.create_task(store.read("good", 0, SOON))
        for writer in (bad, good):
            writer.append(b"x")
            writer.leave()
            writer.close("whole")
        assert await waiting == TurnPart(b"x")
        async with asyncio.timeout(SOON):
            for turn_id in ("bad", "none"):
                await store.read(turn_id, 0, 0.05)
                await store.find(turn_id)
                await store.touch(turn_id)
                await store.release(turn_id)
            await store.turns("o")
            await store.keyed("k")
            await store.claim("r")
            await store.lease("bad", "me", 1.0)
            await store.remove("bad")
        assert await store.read("good", 0, SOON) == TurnPart(b"x")
        assert not good.lost

    with_store(redis, scenario)


def test_a_turn_that_always_has_something_to_write_keeps_its_lease(redis: RedisServer) -> None:
    lease, ending = f"{PREFIX}lease:t", asyncio.Event()

    def rest() -> int:
        return int(redis.ask("PTTL", lease)[1:])

    async def scenario(store: RedisStore) -> None:
        writer = store.begin(TurnInfo(id="t"), lambda: None)

        async def write() -> None:
            while not ending.is_set():
                writer.append(b"x")
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        try:
            await eventually(lambda: rest() > 0)
            assert redis.ask("PEXPIRE", lease, "30000") == b":1\r\n"
            await eventually(lambda: rest() > 30_000)
        finally:
            ending.set()
            await writing

    with_store(redis, scenario, lease=60.0, renew=0.05)


def test_a_turn_that_is_gone_was_taken_from_who_stood_still(redis: RedisServer) -> None:
    """It was taken when its lease was over, and its time was over before its holder went on."""

    async def scenario(store: RedisStore) -> None:
        writer = store.begin(TurnInfo(id="t1"), lambda: None)
        await found(store, "t1", 0)
        time.sleep(1.5)  # the whole process is to stand still
        redis.ask("DEL", f"{PREFIX}turn:t1")
        await eventually(lambda: writer.lost)
        assert writer.is_superseded

    with_store(redis, scenario, lease=1.5)
