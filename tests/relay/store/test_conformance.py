"""What every store of turns does: in the process, and in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.redis_server import RedisServer
from unbroken.relay.store.contract import HEAD, MAX_PUBLISHED, MAX_PUBLISHERS, Store, TurnInfo, TurnPart, TurnWriter
from unbroken.relay.store.memory import MemoryStore
from unbroken.relay.store.redis_store import RedisStore
from waiting import poll

HEADERS = ((b"content-type", b"text/event-stream"), (b"x-latin", b"caf\xe9"))

SOON = 30.0

Scenario = Callable[["Opened"], Awaitable[None]]


class Opened:
    """A store that is open, and how further ones are opened on the same turns."""

    def __init__(self, make: Callable[..., Store], given: dict[str, Any], *, is_shared: bool) -> None:
        self.store = make(**given)
        self.is_shared = is_shared
        self.lost: list[str] = []
        self._make = make
        self._given = given

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Store]:
        """The store as another relay sees it; in memory it is the same one."""
        if not self.is_shared:
            yield self.store
            return
        other = self._make(**self._given)
        await other.open()
        try:
            yield other
        finally:
            await other.aclose()

    def begin(self, turn_id: str = "t1", **known: Any) -> TurnWriter:
        return self.store.begin(TurnInfo(id=turn_id, **known), lambda: self.lost.append(turn_id))

    async def written(self, writer: TurnWriter) -> None:
        """Wait until nothing waits to be written."""
        if self.is_shared:
            await eventually(lambda: self.store._queue._is_idle.is_set())


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.002)


async def read(store: Store, turn_id: str = "t1", after: int = 0) -> tuple[bytes, str]:
    """All that follows a position, and how it ends."""
    body = bytearray()
    async with asyncio.timeout(SOON):
        while True:
            part = await store.read(turn_id, after + len(body), 0.2)
            assert part is not None
            body += part.data
            if part.ending:
                return bytes(body), part.ending


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a scenario with an open store: ``run(scenario, keep=..., lease=...)``."""

    def start(scenario: Scenario, **given: Any) -> None:
        settings: dict[str, Any] = {"keep": 30.0, **given}
        if request.param == "memory":
            settings.pop("renew", None)
            opened = Opened(MemoryStore, {"capacity": 1_000_000, **settings}, is_shared=False)
        else:
            server: RedisServer = request.getfixturevalue("redis")
            opened = Opened(RedisStore, {"url": server.url, **settings}, is_shared=True)

        async def main() -> None:
            await opened.store.open()
            try:
                await scenario(opened)
            finally:
                await opened.store.aclose()

        asyncio.run(main())

    return start


def test_what_is_written_is_read_from_any_position(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        writer.head(200, HEADERS)
        for piece in (b"one", b"", b"two", b"three"):
            writer.append(piece)
        writer.close("whole")
        async with opened.another() as store:
            assert await store.read("t1", HEAD, SOON) == TurnPart(status=200, headers=HEADERS)
            for after in range(12):
                assert await read(store, after=after) == (b"onetwothree"[after:], "whole")
            assert await read(store, after=12) == (b"", "cut")
            state = await store.find("t1")
        assert state is not None
        assert (state.size, state.ending, state.is_written) == (11, "whole", True)

    run(scenario)


def test_a_reader_waits_for_what_comes(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        async with opened.another() as store:
            readers = [asyncio.create_task(read(store)) for _ in range(20)]
            head = asyncio.create_task(store.read("t1", HEAD, SOON))
            await opened.written(writer)
            writer.head(200, ())
            for number in range(50):
                writer.append(b"%d " % number)
                await asyncio.sleep(0.001)
            writer.close("ended")
            whole = b"".join(b"%d " % number for number in range(50))
            assert await asyncio.gather(*readers) == [(whole, "ended")] * 20
            assert await head == TurnPart(status=200)

    run(scenario)


def test_nothing_comes_in_time(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        opened.begin()
        async with opened.another() as store:
            await eventually_there(store, "t1")
            part = await store.read("t1", 0, 0.01)
            assert part == TurnPart()
            assert part.is_empty
            assert await store.read("none", 0, 0.01) is None
            assert await store.find("none") is None

    run(scenario)


async def eventually_there(store: Store, turn_id: str) -> None:
    async with asyncio.timeout(SOON):
        while await store.find(turn_id) is None:
            await asyncio.sleep(0.002)


def test_a_turn_is_claimed_once(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(request="same")
        other = opened.begin("t2", request="another")
        writer.append(b"x")
        await opened.written(writer)
        async with opened.another() as store:
            assert await store.claim("same") is None
            writer.leave()
            other.leave()
            await opened.written(writer)
            claims = await asyncio.gather(*(store.claim("same") for _ in range(20)))
            assert sorted(filter(None, claims)) == ["t1"]
            writer.close("whole")
            await opened.written(writer)
            assert await store.claim("same") is None
            await store.release("t1")
            assert await store.claim("same") == "t1"

    run(scenario)


@pytest.mark.parametrize("ending", ["cut", "ended"])
def test_a_failed_turn_is_never_claimed(run: Callable[..., None], ending: Any) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(request="same")
        writer.leave()
        writer.close(ending)
        await opened.written(writer)
        assert await opened.store.claim("same") is None

    run(scenario)


def test_the_last_turn_of_a_key_is_found(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        for turn_id in ("t1", "t2"):
            await opened.written(opened.begin(turn_id, key="k", request=f"of {turn_id}"))
        state = await opened.store.keyed("k")
        assert state is not None
        assert (state.info.id, state.info.request) == ("t2", "of t2")
        assert await opened.store.keyed("other") is None

    run(scenario)


def test_an_owner_lists_its_own_turns(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        for turn_id, owner in (("t1", "me"), ("t2", "you"), ("t3", "me")):
            writer = opened.begin(turn_id, owner=owner, path="/v1/x", upstream="lab")
            await opened.written(writer)
            assert not writer.lost
            await asyncio.sleep(0.002)
        async with opened.another() as store:
            assert [state.info.id for state in await store.turns("me")] == ["t3", "t1"]
            assert [state.info.path for state in await store.turns("you")] == ["/v1/x"]
            assert await store.turns("nobody") == []
            await store.remove("t3")
            assert [state.info.id for state in await store.turns("me")] == ["t1"]

    run(scenario)


def test_the_writer_of_a_removed_turn_is_told(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        writer.append(b"x")
        await opened.written(writer)
        async with opened.another() as store:
            await store.remove("t1")
            assert await store.find("t1") is None
            await eventually(lambda: opened.lost == ["t1"])  # nothing is written, and no lease is to be renewed soon
            assert writer.lost
            assert writer.is_removed
            assert not writer.is_superseded
            writer.append(b"y")
            writer.close("whole")
            assert await store.read("t1", 0, 0.01) is None

    run(scenario, lease=600.0)


def test_the_writer_of_a_removed_turn_is_told_what_came_of_its_writing(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        await opened.written(writer)
        async with opened.another() as store:
            await store.remove("t1")
            writer.append(b"y")
            await eventually(lambda: writer.is_removed)
            assert await store.find("t1") is None

    run(scenario, lease=600.0)


def test_nothing_stays_longer_than_it_is_kept(run: Callable[..., None], request: pytest.FixtureRequest) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(owner="me", key="k", request="r")
        writer.head(200, HEADERS)
        writer.append(b"x")
        writer.leave()
        writer.close("whole")
        await opened.written(writer)
        assert await read(opened.store) == (b"x", "whole")
        for _ in range(4):
            await asyncio.sleep(0.35)
            await opened.store.touch("t1")
        state = await opened.store.find("t1")
        assert state is not None, "what is read is kept"
        assert state.unread < 5.0
        async with asyncio.timeout(SOON):
            while await opened.store.find("t1"):
                await asyncio.sleep(0.02)
        assert await opened.store.claim("r") is None
        assert await opened.store.keyed("k") is None
        assert await opened.store.turns("me") == []
        assert opened.lost == []

    run(scenario, keep=1.0, lease=0.1)
    if "redis" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("redis")
        poll(lambda: server.known() == set())


def test_a_claim_lapses_where_nobody_reads(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        store = opened.store
        for turn_id in ("t1", "t2"):
            writer = opened.begin(turn_id, request="r")
            writer.head(200, ())
            writer.leave()
            writer.close("whole")
            await opened.written(writer)
        claimed = [await store.claim("r"), await store.claim("r")]
        assert sorted(filter(None, claimed)) == ["t1", "t2"]
        await store.collected("t1")
        await store.touch("t2")
        assert await store.claim("r") is None
        async with asyncio.timeout(SOON):
            while (again := await store.claim("r")) is None:
                await asyncio.sleep(0.05)
        assert again == "t2", "the other one was collected"
        await store.touch("t1")
        assert await store.claim("r") is None, "it is as it was"

    run(scenario, claim=1.0)


def test_a_lease_is_held_by_one(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        await opened.written(writer)
        async with opened.another() as store:
            assert await store.lease("none", "you", 1.0) is None
            assert await store.lease("t1", "you", 1.0) is None
            async with asyncio.timeout(SOON):
                while (epoch := await store.lease("t1", "you", 60.0)) is None:
                    await asyncio.sleep(0.01)
            assert epoch == 2
            assert await store.lease("t1", "me", 1.0) is None
            assert await store.lease("t1", "you", 0.01) == 2
            await asyncio.sleep(0.02)
            assert await store.lease("t1", "me", 1.0) == 3
            assert not await store.cut("t1", 2)
            assert await store.cut("t1", 3)
            await asyncio.sleep(0.02)
            assert await store.lease("t1", "they", 60.0) is None, "it has ended"

    run(scenario, lease=1.0, renew=60.0)


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_who_takes_a_dead_ones_turn_over_says_so(run: Callable[..., None], is_taken_over: bool) -> None:
    async def scenario(opened: Opened) -> None:
        await opened.written(opened.begin())
        async with opened.another() as store:
            async with asyncio.timeout(SOON):
                while (epoch := await store.lease("t1", "you", 60.0)) is None:
                    await asyncio.sleep(0.01)
            held = await store.find("t1")
            assert held is not None
            assert not held.is_taken_over
            assert await store.cut("t1", epoch, is_taken_over=is_taken_over)
            ended = await store.find("t1")
            assert ended is not None
            assert (ended.ending, ended.is_taken_over) == ("cut", is_taken_over)

    run(scenario, lease=0.1, renew=60.0)


def test_what_an_older_epoch_writes_is_refused(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        writer.append(b"mine")
        await opened.written(writer)
        async with opened.another() as store:
            async with asyncio.timeout(SOON):
                while (epoch := await store.lease("t1", "you", 60.0)) is None:
                    await asyncio.sleep(0.01)
            writer.append(b"late")
            writer.leave()
            writer.close("whole")
            await opened.written(writer)
            assert writer.lost
            assert writer.is_superseded
            assert await store.cut("t1", epoch)
            assert await read(store) == (b"mine", "cut")

    run(scenario, lease=0.1, renew=60.0)


def test_a_writer_whose_lease_was_taken_is_told(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        await opened.written(writer)
        async with opened.another() as store:
            assert not writer.is_superseded
            async with asyncio.timeout(SOON):
                while await store.lease("t1", "you", 60.0) is None:
                    await asyncio.sleep(0.01)
            writer.append(b"late")
            await eventually(lambda: opened.lost == ["t1"])
            assert writer.is_superseded

    run(scenario, lease=0.1, renew=60.0)


def test_a_turn_whose_writer_has_died_is_claimed_and_ends_as_a_cut(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(request="same")
        writer.append(b"half")
        await opened.written(writer)
        async with opened.another() as store:
            async with asyncio.timeout(SOON):
                while not (part := await store.read("t1", 4, 0.02, ends_abandoned=False)).is_abandoned:  # type: ignore[union-attr]
                    assert part == TurnPart()
            assert await store.read("t1", 0, SOON, ends_abandoned=False) == TurnPart(b"half")
            claims = await asyncio.gather(*(store.claim("same") for _ in range(5)))
            assert sorted(filter(None, claims)) == ["t1"]
            assert store.was_abandoned("t1")
            await store.release("t1")
            assert await store.claim("same") == "t1"
            assert await read(store) == (b"half", "cut")
            await store.release("t1")
            assert await store.claim("same") is None

    run(scenario, lease=0.1, renew=60.0)


def test_a_turn_that_is_handed_over_is_anybodys_at_once(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(request="same")
        writer.append(b"half")
        writer.hand_over()
        writer.append(b"late")
        writer.close("whole")
        await opened.written(writer)
        async with opened.another() as store:
            assert await store.claim("same") == "t1"
            part = await store.read("t1", 4, 0.01, ends_abandoned=False)
            assert part is not None
            assert part.is_abandoned
            epoch = await store.lease("t1", "you", 60.0)
            assert epoch == 2
            assert await store.cut("t1", epoch)
            assert await read(store) == (b"half", "cut")

    run(scenario)


def test_one_whose_writer_lives_is_not(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin(request="same")
        await opened.written(writer)
        async with opened.another() as store:
            assert await store.claim("same") is None
            assert await store.read("t1", 0, 0.01, ends_abandoned=False) == TurnPart()
            writer.close("whole")
            await opened.written(writer)
            assert await store.claim("same") is None

    run(scenario)


def test_a_turn_over_its_cap_is_lost(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        writer.append(b"x" * 50_000)
        await opened.written(writer)
        writer.append(b"x" * 50_001)
        assert "100000 bytes" in writer.lost
        assert opened.lost == ["t1"]
        async with asyncio.timeout(SOON):
            while await opened.store.find("t1"):
                await asyncio.sleep(0.002)

    run(scenario, max_turn=100_000)


def test_a_large_body_is_read_in_parts(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        writer = opened.begin()
        body = bytes(range(256)) * 3000
        writer.append(body)
        writer.close("whole")
        part = await opened.store.read("t1", 5, SOON)
        assert part is not None
        assert part.data == body[5 : 5 + len(part.data)]
        assert len(part.data) < 400_000
        assert await read(opened.store, after=5) == (body[5:], "whole")

    run(scenario)


def test_what_is_published_is_read_by_all(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        assert await opened.store.published() == []
        await opened.store.publish("a", b"first of a", 60.0)
        await opened.store.publish("a", b"of a", 60.0)
        await opened.store.publish("b", b"of b", 60.0)
        await opened.store.publish("c", b"", 0.05)
        async with opened.another() as store:
            await store.publish("d", b"of d", 60.0)
            async with asyncio.timeout(SOON):
                while (found := sorted(await store.published())) != [b"of a", b"of b", b"of d"]:  # c's time is up
                    assert set(found) <= {b"of a", b"of b", b"of d", b""}

    run(scenario)


def test_it_is_known_whether_somebody_reads_what_is_published(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        assert not await opened.store.watched()
        async with opened.another() as store:
            await store.published()
        assert await opened.store.watched()

    run(scenario)


def test_of_what_is_published_only_so_much_is_read(run: Callable[..., None]) -> None:
    async def scenario(opened: Opened) -> None:
        await opened.store.publish("huge", bytes(MAX_PUBLISHED + 1), 60.0)
        await opened.store.publish("large", bytes(MAX_PUBLISHED), 60.0)
        assert await opened.store.published() == [bytes(MAX_PUBLISHED)]
        for number in range(MAX_PUBLISHERS + 5):
            await opened.store.publish(f"small{number}", b"%d" % number, 60.0)
        assert len(await opened.store.published()) == MAX_PUBLISHERS

    run(scenario)
