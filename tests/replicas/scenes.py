"""What is looked at by itself: a holder that is stopped, identical requests at once, and many attached readers."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from typing import Any

from relay.kept.asking import Came, ask
from relay.kept.clients import CHAT, KEY
from replicas.judge import Judge, Reading
from replicas.processes import Redis, Replica
from replicas.turns import body_of
from unbroken.lab import Upstream

SLOW_CHAT = "/slow/v1/chat/completions"
PATIENCE = 120.0
"""Seconds for which a scene waits for what must come."""
EVERY = 0.1
AT_A_TIME = 100
"""How many readers come at once: a store that takes too long to answer all of them is no reason to make them wait."""

Listed = list[dict[str, Any]]


async def until(condition: Any) -> None:
    """Wait until an asynchronous condition is true.

    Raises:
        TimeoutError: it never came true.
    """
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(EVERY)


async def listed(replica: Replica, key: str) -> Listed:
    """Return the turns that a relay lists for a credential."""
    came = await ask(replica.port, "GET", "/_unbroken/turns", {}, key=key)
    return list(json.loads(came.body)["turns"]) if came.status == 200 else []


async def end(replica: Replica, turn: str, key: str) -> None:
    """End a turn, at the upstream too."""
    await ask(replica.port, "DELETE", f"/_unbroken/turns/{turn}", {}, key=key)


async def stopped_holder(replicas: list[Replica], redis: Redis, slow: Upstream, lease: float) -> list[str]:
    """Stop the holder of a turn for three leases; return what is wrong with what its clients got."""
    holder, other = replicas[:2]
    prompt, key, fields = "the stopped one.", f"{KEY}-stopped", {"idempotency-key": "stopped"}
    first = Came()

    def note(came: Came) -> None:
        nonlocal first
        first = came

    body = body_of(prompt)
    asking = asyncio.ensure_future(ask(holder.port, "POST", SLOW_CHAT, fields, key=key, body=body, on_data=note))

    async def has_spoken() -> bool:
        return b"word" in first.body and bool(await listed(other, key))

    async def is_free() -> bool:
        return redis.ask("EXISTS", f"unbroken:1:lease:{first.turn}") == b":0\r\n"

    await until(has_spoken)
    holder.send(signal.SIGSTOP)
    stopped = time.monotonic()
    await until(is_free)
    target = f"/_unbroken/turns/{first.turn}?after="
    by_position = await ask(other.port, "GET", f"{target}0", {}, key=key)
    again = asyncio.ensure_future(ask(other.port, "POST", SLOW_CHAT, fields, 1500, key=key, body=body))
    kept = len(by_position.body)
    while time.monotonic() < stopped + 3 * lease:
        kept = len((await ask(other.port, "GET", f"{target}0", {}, key=key)).body)  # reading it keeps it in the store
        await asyncio.sleep(lease / 8)
    holder.send(signal.SIGCONT)
    request = next(one for one in slow.requests if prompt.encode() in one.body)

    async def has_ended() -> bool:
        return request.gone

    await until(has_ended)
    after = await ask(other.port, "GET", f"{target}0", {}, key=key)
    for other_turn in await listed(other, key):
        await end(other, other_turn["id"], key)
    got = [first, by_position, after, await again, *(await asyncio.gather(asking, return_exceptions=True))]
    judge = Judge(slow.requests)
    readings = [Reading(prompt, came.body, came.ended) for came in got if isinstance(came, Came) and came.status == 200]
    wrong = [fault for fault in map(judge.fault_of, readings) if fault]
    if len(after.body) != kept:
        wrong.append(f"the holder wrote {len(after.body) - kept} bytes after it had been stopped")
    return wrong


async def identical(replicas: list[Replica], lab: Upstream, chance: random.Random, count: int = 20) -> list[str]:
    """Send identical requests at once, and let half of the clients go and come back; return what is wrong."""
    prompt, key = "the same for all.", f"{KEY}-identical"
    body = body_of(prompt)

    async def one(leave_after: int | None, fields: dict[str, str]) -> Came:
        return await ask(chance.choice(replicas).port, "POST", CHAT, fields, leave_after, key=key, body=body)

    asked = await asyncio.gather(*(one(800 if number % 2 else None, {}) for number in range(count)))

    async def all_left() -> bool:
        return sum(turn["client_left"] for turn in await listed(chance.choice(replicas), key)) == count // 2

    await until(all_left)
    again = await asyncio.gather(*(one(None, {"x-stainless-retry-count": "1"}) for _ in range(count // 2)))
    answers = [Reading(prompt, came.body, came.ended) for came in (*asked[::2], *again)]
    judge = Judge(lab.requests)
    wrong = [fault for fault in map(judge.fault_of, answers) if fault]
    wrong += [f"{answer.body[-60:]!r} is no whole answer" for answer in answers if not answer.is_whole]
    if doubled := [number for number, times in Counter(one.generation for one in answers).items() if times > 1]:
        wrong.append(f"two answers from each of the generations {doubled}")
    requests = sum(prompt.encode() in request.body for request in lab.requests)
    if requests != count:
        wrong.append(f"the upstream was asked {requests} times for {count} answers")
    return wrong


async def attached(
    replicas: list[Replica], redis: Redis, slow: Upstream, readers: int
) -> tuple[dict[int, int], list[str]]:
    """Attach many readers to one turn; return each relay's connections to the store meanwhile, and what is wrong."""
    prompt, key, fields = "read by many.", f"{KEY}-readers", {"idempotency-key": "readers"}
    body, begun = body_of(prompt), set[int]()
    asking = [asyncio.ensure_future(ask(replicas[0].port, "POST", SLOW_CHAT, fields, key=key, body=body))]

    async def is_known() -> bool:
        return bool(await listed(replicas[-1], key))

    await until(is_known)
    for number in range(readers):
        where = replicas[number % len(replicas)].port

        def note(came: Came, number: int = number) -> None:
            if b"word" in came.body:
                begun.add(number)

        asking.append(asyncio.ensure_future(ask(where, "POST", SLOW_CHAT, fields, key=key, body=body, on_data=note)))
        if number % AT_A_TIME == AT_A_TIME - 1 or number == readers - 1:

            async def all_read(count: int = number + 1) -> bool:
                return len(begun) == count

            await until(all_read)

    clients = redis.clients()
    counted = {replica.number: len(replica.ports_to(redis.port) & clients) for replica in replicas}
    for turn in await listed(replicas[0], key):
        await end(replicas[0], turn["id"], key)
    got = await asyncio.gather(*asking, return_exceptions=True)
    wrong = [f"{type(one).__name__}: {one}" for one in got if isinstance(one, BaseException)]
    judge = Judge(slow.requests)
    readings = [Reading(prompt, *read) for read in {(one.body, one.ended) for one in got if isinstance(one, Came)}]
    wrong += [fault for fault in map(judge.fault_of, readings) if fault]
    requests = sum(prompt.encode() in request.body for request in slow.requests)
    if requests != 1:
        wrong.append(f"the upstream was asked {requests} times for one turn")
    return counted, wrong
