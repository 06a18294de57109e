"""The store in the process is bounded."""

from __future__ import annotations

import asyncio

from unbroken.relay.store.contract import TurnInfo
from unbroken.relay.store.memory import OVERHEAD, MemoryStore


def test_turns_that_ended_make_room_first() -> None:
    async def main() -> None:
        store = MemoryStore(30.0, 3 * OVERHEAD + 300)
        lost: list[str] = []
        running = store.begin(TurnInfo(id="running"), lambda: lost.append("running"))
        running.append(b"x" * 100)
        for turn_id in ("first", "second", "third", "fourth"):
            writer = store.begin(TurnInfo(id=turn_id), lambda turn_id=turn_id: lost.append(turn_id))
            writer.append(b"y" * 100)
            writer.close("whole")
        assert store.size <= 3 * OVERHEAD + 300
        assert [await store.find(turn_id) is not None for turn_id in ("running", "first", "second", "third")] == [
            *(True, False, False, True)
        ]
        assert lost == []

    asyncio.run(main())


def test_without_room_a_turn_is_lost_and_not_the_others() -> None:
    async def main() -> None:
        store = MemoryStore(30.0, 2 * OVERHEAD + 100)
        lost: list[str] = []
        first = store.begin(TurnInfo(id="first"), lambda: lost.append("first"))
        second = store.begin(TurnInfo(id="second"), lambda: lost.append("second"))
        first.append(b"x" * 100)
        second.append(b"y")
        assert lost == ["second"]
        assert "--max-kept" in second.lost
        assert store.size == OVERHEAD + 100
        third = store.begin(TurnInfo(id="third"), lambda: lost.append("third"))
        assert not third.lost
        assert store.begin(TurnInfo(id="fourth"), lambda: lost.append("fourth")).lost
        first.close("whole")
        await store.aclose()
        assert store.size == 0

    asyncio.run(main())


def test_turns_without_a_body_are_bounded_too() -> None:
    async def main() -> None:
        store = MemoryStore(30.0, 100 * OVERHEAD)
        for number in range(1000):
            store.begin(TurnInfo(id=str(number), owner="me"), lambda: None).close("ended")
        assert len(await store.turns("me")) == 100

    asyncio.run(main())
