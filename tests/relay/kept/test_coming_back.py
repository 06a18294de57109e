"""Many clients that leave at random and come back: each has one whole answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import ExitStack

import pytest

from relay.kept.asking import Came, ask
from relay.kept.clients import CHAT, TEXT, Relays, text_in
from relay.redis_server import RedisServer
from unbroken.lab.answer import ScriptedAnswer
from waiting import poll

TURNS, AT_ONCE = 400, 80
ANSWER = "".join(TEXT)


async def one_turn(port: int, chance: random.Random, number: int) -> str:
    """One client, which may leave several times; what it has in the end."""
    key = {"idempotency-key": f"k{number}"}
    came = await ask(port, "POST", CHAT, key, chance.choice([None, 1, 300, 900, 3000]))
    assert came.status == 200
    if came.ended:
        return judged(came.body, came)
    if chance.random() < 0.1:
        return "left"
    await asyncio.sleep(chance.random() * 0.2)
    if chance.random() < 0.4:
        again = await ask(port, "POST", CHAT, key)
        assert (again.turn, again.body[: len(came.body)]) == (came.turn, came.body)
        return judged(again.body, again)
    body = came.body
    while True:
        target = f"/_unbroken/turns/{came.turn}?after={len(body)}"
        rest = await ask(port, "GET", target, {}, chance.choice([None, None, 200, 1500]))
        assert rest.status == 200
        body += rest.body
        if rest.ended:
            return judged(body, rest)


def judged(body: bytes, came: Came) -> str:
    return "whole" if came.ended and text_in(body) == ANSWER and body.endswith(b"[DONE]\n\n") else "not whole"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_each_has_one_whole_answer(stack: ExitStack, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine that is busy the store may take longer, and a request that waits for it too long goes upstream.
    monkeypatch.setattr("unbroken.relay.kept.keeper.ASK_WITHIN", 60.0)
    redis = stack.enter_context(RedisServer()) if kind == "redis" else None
    relays = Relays(stack, redis.url if redis else "memory://")
    client = relays.serve(ScriptedAnswer(text=TEXT, gap=0.01), keep=60.0)
    chance = random.Random(7)

    async def main() -> Counter[str]:
        places = asyncio.Semaphore(AT_ONCE)

        async def run(number: int) -> str:
            async with places:
                return await one_turn(client.served.port, random.Random(chance.random()), number)

        async with asyncio.timeout(120):
            return Counter(await asyncio.gather(*map(run, range(TURNS))))

    before = client.served.tasks()
    outcomes = asyncio.run(main())
    assert set(outcomes) == {"whole", "left"}
    assert relays.asked_upstream == TURNS
    if redis:
        assert redis.ask("CLIENT", "LIST").count(b" addr=") - 1 == 3
    poll(lambda: client.served.relay.recorder.live == {})
    poll(lambda: client.served.tasks() <= before + 2)  # Redis' reader and what wakes it
    assert client.served.relay._budget.turns == 0
    if redis:
        assert [name for name in redis.known() if redis.ask("PTTL", name).startswith(b":-1")] == []
