"""Relays that share a store, their clients, and everything that can happen to them, judged byte by byte.

    make replicas                                              2,000 turns, 200 at a time
    python -m replicas.driver --turns 150 --at-once 30         fewer

Three relays, a real Redis or Valkey, the lab's upstream. Clients leave at random, and come back to any relay: under
their key, as a retry, or by position. Relays are killed (SIGKILL) and started again at random, the store is stopped and
started again twice, with all that it knew. It is checked that

* every client has one whole answer, or a visible error; none has a byte that is doubled, missing or another answer's;
* a client whose turn's holder was not killed, and that met no outage of the store, has the whole answer, and the
  upstream was asked once for it. The *holder* is the process of the relay that was the first to take the request. Two
  exceptions, both of clients that have no key: the whole answer had been sent before its client left, so that its retry
  is a new turn; and the relay was killed at which the client was collecting its turn;
* no relay ever has more than four connections to the store;
* after that: a holder that is stopped (SIGSTOP) for three leases and goes on, identical requests at once, and many
  readers of one turn;
* in the end nothing is left in the store once the keep time is over, and the relays have no more tasks, connections or
  open files than in the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.kept.asking import ask
from relay.kept.clients import CHAT, KEY
from replicas import scenes
from replicas.judge import Judge
from replicas.processes import Census, Redis, Replica
from replicas.turns import WAYS, Clients, Turn, body_of
from unbroken.lab import ScriptedAnswer, Upstream

RELAYS = 3
MOST_CONNECTIONS = 4
MAX_IDLE = 8
"""How many idle connections to upstreams a relay keeps."""
ANSWER = ScriptedAnswer(text=tuple(f" word{number}" for number in range(30)), gap=0.05)
ENDLESS = ScriptedAnswer(text=tuple(f" word{number}" for number in range(3000)), gap=0.2)
AWAY = 2.0
"""Seconds for which the store is away."""
ASK_WITHIN = 60.0
SETTLE_WITHIN = 60.0
MORE = 15.0
"""Seconds that a busy machine is given beside what the store's expiry takes."""


@dataclass
class Options:
    """What is run.

    Attributes:
        turns: how many turns.
        at_once: how many of them at a time.
        kills: how often a relay is killed.
        outages: how often the store is stopped.
        readers: how many readers are attached to one turn.
        keep: seconds for which turns are kept.
        lease: seconds for which a relay holds a turn.
        seed: of everything that is random.
    """

    turns: int = 2000
    at_once: int = 200
    kills: int = 12
    outages: int = 2
    readers: int = 5000
    keep: float = 60.0
    lease: float = 15.0
    seed: int = 1


@dataclass
class Result:
    """What came of it.

    Attributes:
        counts: how many turns, by what came of them; and what else was counted.
        violations: what is wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Soak:
    """All of it.

    Args:
        options: what is run.
        progress: told of each turn that ends how many have.
    """

    def __init__(self, options: Options, progress: Any = lambda done: None) -> None:
        self.result = Result()
        self._options = options
        self._progress = progress
        self._chance = random.Random(options.seed)
        self._turns = [Turn(number, self._chance.choice(WAYS)) for number in range(options.turns)]
        self._done = 0
        self._at = time.monotonic()

    def run(self) -> Result:
        """Run everything; return what came of it."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replicas-")))
            self._lab = stack.enter_context(Upstream(answer=ANSWER))
            self._slow = stack.enter_context(Upstream(answer=ENDLESS))
            self._redis = stack.enter_context(Redis())
            options = [
                *("--keep", str(self._options.keep), "--store", f"redis://127.0.0.1:{self._redis.port}/0"),
                *("--upstream", f"lab={self._lab.url}", "--upstream", f"slow={self._slow.url}", "--default", "lab"),
                *("--proxy", "direct", "--heartbeat", "0", "--max-turns", "20000", "--grace", "1"),
            ]
            lease = self._options.lease
            self._replicas = [Replica(number, folder, lease, ASK_WITHIN, options) for number in range(RELAYS)]
            for replica in self._replicas:
                stack.callback(replica.close)
            asyncio.run(self._run())
        return self.result

    async def _run(self) -> None:
        self._clients = Clients(self._replicas, self._chance)
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in self._replicas))
        await self._until_store_works()
        for replica in self._replicas:
            await self._read_by_position(replica)  # what a relay's first reader starts stays
        began = {replica.number: await self._census(replica) for replica in self._replicas}
        watching = asyncio.ensure_future(self._watch_connections())
        happening = [asyncio.ensure_future(self._kill_relays()), asyncio.ensure_future(self._stop_store())]
        places = asyncio.Semaphore(self._options.at_once)
        await asyncio.gather(*(self._turn(turn, places) for turn in self._turns))
        await asyncio.gather(*happening)
        watching.cancel()
        self._judge()
        self._note_time("turns")
        await self._scenes()
        await self._ends(began)
        self._note_time("end")

    async def _turn(self, turn: Turn, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self._clients.run(turn)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is a violation
                turn.outcome, turn.finished = "broken", time.monotonic()
                self._wrong(f"turn {turn.number}, {turn.way}: {type(exc).__name__}: {exc}")
        self._done += 1
        self._progress(self._done)

    def _wrong(self, what: str) -> None:
        self.result.violations.append(what)

    # What happens meanwhile

    async def _until_done(self, share: float) -> None:
        """Wait until so many of the turns are done."""
        while self._done < share * len(self._turns):
            await asyncio.sleep(0.02)

    async def _kill_relays(self) -> None:
        shares = sorted(self._chance.uniform(0.02, 0.95) for _ in range(self._options.kills))
        for share in shares:
            await self._until_done(share)
            replica = self._chance.choice(self._replicas)
            await asyncio.to_thread(replica.kill)
            self.result.counts["relays killed"] += 1
            await asyncio.sleep(self._chance.random())
            await asyncio.to_thread(replica.start)

    async def _stop_store(self) -> None:
        for number in range(self._options.outages):
            await self._until_done((number + 1) / (self._options.outages + 1))
            began = time.monotonic()
            self._clients.outages.append((began, float("inf")))
            await asyncio.to_thread(self._redis.stop)
            await asyncio.sleep(AWAY)
            await asyncio.to_thread(self._redis.start)
            await self._until_store_works()
            self._clients.outages[-1] = (began, time.monotonic())
            self.result.counts["store stopped"] += 1

    async def _until_store_works(self) -> None:
        """Wait until a turn of each relay is known to all of them."""
        for replica in self._replicas:
            key = f"{KEY}-probe-{time.monotonic_ns()}"

            async def is_known(replica: Replica = replica, key: str = key) -> bool:
                try:
                    await ask(replica.port, "POST", CHAT, {}, key=key, body=body_of("probe."))
                    return all([await scenes.listed(one, key) for one in self._replicas])
                except (OSError, EOFError):  # it was killed just now
                    return False

            await scenes.until(is_known)

    async def _read_by_position(self, replica: Replica) -> None:
        key = f"{KEY}-first-{replica.number}"
        came = await ask(replica.port, "POST", CHAT, {}, key=key, body=body_of("first."))
        await ask(replica.port, "GET", f"/_unbroken/turns/{came.turn}?after=0", {}, key=key)

    async def _watch_connections(self) -> None:
        while True:
            clients = await asyncio.to_thread(self._clients_of_store)
            for replica in self._replicas:
                self._count_connections(replica, clients)
            await asyncio.sleep(0.5)

    def _clients_of_store(self) -> set[int]:
        try:
            return self._redis.clients()
        except OSError:  # it is away
            return set()

    def _count_connections(self, replica: Replica, clients: set[int]) -> None:
        try:
            count = len(replica.ports_to(self._redis.port) & clients)
        except (OSError, AssertionError):  # it was killed just now
            return
        self._note_connections(replica.number, count)

    def _note_connections(self, number: int, count: int) -> None:
        counts = self.result.counts
        counts["most connections to the store"] = max(counts["most connections to the store"], count)
        if count > MOST_CONNECTIONS:
            self._wrong(f"relay {number} has {count} connections to the store")

    # What came of it

    def _judge(self) -> None:
        judge, counts = Judge(self._lab.requests), self.result.counts
        asked = Counter(json.loads(request.body)["messages"][0]["content"] for request in self._lab.requests)
        for turn in self._turns:
            counts[turn.outcome] += 1
            counts["requests upstream"] += asked[turn.prompt]
            faults = [fault for fault in map(judge.fault_of, turn.readings) if fault]
            if not self._clients.is_disturbed(turn, turn.finished):
                counts["undisturbed"] += 1
                if turn.outcome != "whole":
                    faults.append(f"no answer, although its holder lived: {turn.detail}")
                counts["all was sent before the client left"] += turn.all_was_sent
                if asked[turn.prompt] != 1 and not (turn.all_was_sent and turn.way == "as a retry"):
                    faults.append(f"the upstream was asked {asked[turn.prompt]} times, although its holder lived")
            for fault in faults:
                self._wrong(f"turn {turn.number}, {turn.way}: {fault} ({'; '.join(turn.story)})")

    async def _scenes(self) -> None:
        options, replicas = self._options, self._replicas
        await self._scene("stopped", scenes.stopped_holder(replicas, self._redis, self._slow, options.lease))
        await self._scene("identical", scenes.identical(replicas, self._lab, self._chance))
        await self._scene("readers", self._attach_readers())

    async def _scene(self, name: str, wrong: Awaitable[list[str]]) -> None:
        try:
            for what in await wrong:
                self._wrong(f"{name}: {what}")
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is a violation
            self._wrong(f"{name}: {type(exc).__name__}: {exc}")
        self._note_time(name)

    async def _attach_readers(self) -> list[str]:
        readers = self._options.readers
        counted, wrong = await scenes.attached(self._replicas, self._redis, self._slow, readers)
        self.result.counts["attached readers"] = readers
        for number, count in counted.items():
            self._note_connections(number, count)
        return wrong

    def _note_time(self, name: str) -> None:
        now = time.monotonic()
        self.result.counts[f"seconds, {name}"] = round(now - self._at)
        self._at = now

    async def _ends(self, began: dict[int, Census]) -> None:
        for name in self._redis.without_expiry():
            self._wrong(f"{name} would stay in the store for ever")
        at_most = self._options.keep + 4 * self._options.lease + MORE
        if not await self._becomes(lambda: not self._redis.known(), at_most):
            self._wrong(f"left in the store after {at_most:g} s: {sorted(self._redis.known())[:5]}")
        for replica in self._replicas:
            before = began[replica.number]

            def is_as_before(replica: Replica = replica, before: Census = before) -> bool:
                now = replica.census(self._redis.port, self._upstreams)
                same = now.other <= before.other and now.tasks <= before.tasks and not now.clients
                return same and now.store <= MOST_CONNECTIONS and now.upstream <= MAX_IDLE

            if not await self._becomes(is_as_before, SETTLE_WITHIN):
                self._wrong(f"relay {replica.number} began with {before}, and ended with {await self._census(replica)}")

    async def _becomes(self, condition: Any, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.5)
        return True

    async def _census(self, replica: Replica) -> Census:
        return await asyncio.to_thread(replica.census, self._redis.port, self._upstreams)

    @property
    def _upstreams(self) -> set[int]:
        return {self._lab.port, self._slow.port}


def options_of(arguments: list[str] | None = None) -> Options:
    """Read a command line."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m replicas.driver", description=(__doc__ or "").splitlines()[0])
    for name, kind in Options.__annotations__.items():
        of = {"int": int, "float": float}[str(kind)]
        parser.add_argument(f"--{name.replace('_', '-')}", type=of, default=getattr(usual, name))
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    """Run the command line."""
    options = options_of()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def progress(done: int) -> None:
        if done % 50 == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {options.turns} turns")
            sys.stderr.flush()

    result = Soak(options, progress).run()
    told = {**result.counts, "violations": len(result.violations)}
    sys.stdout.write(
        "\n".join([json.dumps(told), *sorted(result.violations, key=lambda what: what.startswith("turn "))[:20], ""])
    )
    return bool(result.violations)


if __name__ == "__main__":
    sys.exit(main())
