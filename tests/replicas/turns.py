"""Clients that leave at random, are cut at random, and come back to another relay, in each way that there is."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.kept.asking import Came, ask
from relay.kept.clients import CHAT, KEY
from replicas.judge import Reading
from replicas.processes import Replica

WAYS = ("by its key", "as a retry", "by position")
TRIES = 25
"""How often a client asks in all, before it tells its user of an error."""
PAUSE = 0.4
"""Seconds between two tries, at most; while no relay serves it is twice as long."""
KNOWN_WITHIN = 120.0
"""Seconds within which what is written behind the events must be known to another relay."""
LEAVING = (None, None, 0, 1, 400, 1500, 4000)
"""After how many bytes a client leaves; ``None``: it stays."""


@dataclass
class Turn:
    """One client and its turn.

    Attributes:
        number: of the turn.
        way: how its client comes back, one of :data:`WAYS`.
        began: when it began.
        finished: when its client had its outcome.
        outcome: "whole" or "error".
        readings: what came, a reading for each answer from its first byte.
        asked: the relays that have taken its requests, and which process of each; the first is the holder.
        all_was_sent: whether the relay had sent the whole answer before it could know that the client had left.
        detail: why it ended in an error.
        story: what it did and got, for whoever has to find out what was wrong.
    """

    number: int
    way: str
    began: float = 0.0
    finished: float = 0.0
    outcome: str = ""
    readings: list[Reading] = field(default_factory=list)
    asked: list[tuple[Replica, int]] = field(default_factory=list)
    all_was_sent: bool = False
    detail: str = ""
    story: list[str] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        return f"turn {self.number}."

    @property
    def key(self) -> str:
        """Its client's own credential, so that it can list its turn."""
        return f"{KEY}-{self.number}"

    @property
    def body(self) -> dict[str, Any]:
        return body_of(self.prompt)

    def has_lost_relay(self, before: float) -> bool:
        """Return whether the process that held it was killed before a time, or one that held its client's claim."""
        counted = self.asked if self.way == "as a retry" else self.asked[:1]
        return any(
            len(replica.deaths) >= process and replica.deaths[process - 1] <= before for replica, process in counted
        )


def body_of(prompt: str) -> dict[str, Any]:
    return {"model": "lab", "stream": True, "messages": [{"role": "user", "content": prompt}]}


class Clients:
    """All clients.

    Args:
        replicas: the relays; each is asked at random, as by a balancer that knows nothing.
        chance: decides what is random.

    Attributes:
        outages: of the store: from when to when.
    """

    def __init__(self, replicas: Sequence[Replica], chance: random.Random) -> None:
        self.outages: list[tuple[float, float]] = []
        self._replicas = replicas
        self._chance = chance

    def is_disturbed(self, turn: Turn, until: float) -> bool:
        """Return whether the process that took a turn died before a time, or the store was away meanwhile."""
        return turn.has_lost_relay(until) or any(
            began <= until and ended >= turn.began for began, ended in self.outages
        )

    async def run(self, turn: Turn) -> None:
        """Have a turn, in whatever way its client comes back."""
        turn.began = time.monotonic()
        ways: dict[str, Callable[[Turn], Awaitable[bool]]] = {
            "by its key": self._by_key,
            "as a retry": self._as_retry,
            "by position": self._by_position,
        }
        turn.outcome = "whole" if await ways[turn.way](turn) else "error"
        turn.finished = time.monotonic()

    async def _by_key(self, turn: Turn) -> bool:
        fields = {"idempotency-key": f"key-{turn.number}"}
        for _ in range(TRIES):
            if await self._post(turn, fields, self._leaving()) and turn.readings[-1].is_whole:
                return True
            await self._pause()
        return False

    async def _as_retry(self, turn: Turn) -> bool:
        for number in range(TRIES):
            fields = {"x-stainless-retry-count": str(number)} if number else {}
            leave_after = None if number else self._leaving()  # nobody could tell that a claim was given back
            if await self._post(turn, fields, leave_after) and turn.readings[-1].is_whole:
                return True
            await self._pause()
        return False

    async def _by_position(self, turn: Turn) -> bool:
        for _ in range(TRIES):
            if came := await self._post(turn, {}, self._leaving()):
                break
            await self._pause()
        else:
            return False
        reading = turn.readings[-1]
        for _ in range(TRIES):
            if reading.is_whole:
                return True
            target = f"/_unbroken/turns/{came.turn}?after={len(reading.body)}"
            rest = await self._ask(turn, "GET", target, {}, self._leaving())
            if rest and rest.status == 200:
                reading.body, reading.ended = reading.body + rest.body, rest.ended
            elif rest and rest.status != 503:
                turn.detail = f"{rest.status} {rest.body[:200]!r}"
                return False  # it was cut, or is kept no more: its user is told
            await self._pause()
        return False

    async def _post(self, turn: Turn, fields: dict[str, str], leave_after: int | None) -> Came | None:
        """Ask for the turn from its first byte; ``None`` if it was refused, or no relay has taken it."""
        came = await self._ask(turn, "POST", CHAT, fields, leave_after)
        if came is None or came.status != 200:
            return None
        turn.readings.append(Reading(turn.prompt, came.body, came.ended))
        return came

    async def _ask(
        self, turn: Turn, method: str, target: str, fields: dict[str, str], leave_after: int | None
    ) -> Came | None:
        """Ask some relay, and perhaps leave; then wait until that is known."""
        replica = self._chance.choice(self._replicas)
        asked = (replica, replica.incarnation)
        try:
            came = await ask(replica.port, method, target, fields, leave_after, key=turn.key, body=turn.body)
        except (ConnectionRefusedError, TimeoutError) as exc:
            turn.detail = type(exc).__name__
            return None
        except (OSError, EOFError) as exc:  # it may have been taken, and sent on
            turn.detail = type(exc).__name__
            came = None
        if method == "POST":
            turn.asked.append(asked)
        turn.story.append(_told(turn, replica, method, came))
        if came and came.status != 200:
            turn.detail = f"{came.status} {came.body[:200]!r}"
        elif came and not came.ended and leave_after is not None and len(came.body) >= leave_after:
            await self._until_known(turn)
        return came

    async def _until_known(self, turn: Turn) -> None:
        """Wait until the relays know that a client has left, unless they cannot any more."""
        deadline, pause = time.monotonic() + KNOWN_WITHIN, PAUSE / 2
        while (now := time.monotonic()) < deadline and not self.is_disturbed(turn, now):
            known = await self._listed(turn)
            if any(one["state"] != "running" or one["client_left"] for one in known):
                turn.all_was_sent = turn.all_was_sent or not any(one["client_left"] for one in known)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 4.0)  # hundreds of clients ask, and are not what is to be tried

    async def _listed(self, turn: Turn) -> list[dict[str, Any]]:
        try:
            came = await ask(self._chance.choice(self._replicas).port, "GET", "/_unbroken/turns", {}, key=turn.key)
        except (OSError, EOFError):
            return []
        return list(json.loads(came.body)["turns"]) if came.status == 200 and came.ended else []

    def _leaving(self) -> int | None:
        return self._chance.choice(LEAVING)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.random() * PAUSE)


def _told(turn: Turn, replica: Replica, method: str, came: Came | None) -> str:
    when = f"{time.monotonic() - turn.began:.2f} s: {method} at relay {replica.number}"
    if came is None:
        return f"{when}: {turn.detail}"
    whole = "whole" if came.ended else "not whole"
    return f"{when}: {came.status}, {len(came.body)} bytes of {came.turn[:8]}, {whole}"
