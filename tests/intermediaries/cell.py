"""One unit of the matrix: an intermediary, an HTTP version and a place of silence, asked by everybody at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from intermediaries.asking import Seen, Way, plain, relayed, run
from intermediaries.judge import Truth, Wrong, wrong
from intermediaries.kinds import ONE_OR_TWO, Intermediary, Version
from intermediaries.running import Place, Trust, origin, requests_of, running

THINK = ONE_OR_TWO[1] + 2.0
"""Seconds of silence: more than the slowest timer, v2ray's."""

PINGS: dict[str, float | None] = {"default": None, "on": 1.0, "off": 0.0}
"""What is asked for by ``--ping``: nothing, less than the timer, none."""

DEFAULT_PING = 10.0
"""What PING is by default."""


@dataclass(frozen=True)
class Asked:
    """Who asks, and how.

    Attributes:
        who: "plain", "run" or "relay".
        ping: a key of :data:`PINGS`, ``""`` for the plain SDK.
    """

    who: str
    ping: str = ""

    @property
    def model(self) -> str:
        return f"{self.who}-{self.ping}"


EVERYBODY = (Asked("plain"), *(Asked(who, ping) for who in ("run", "relay") for ping in PINGS))


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        intermediary: between those that ask and the origin.
        version: what the origin, or the intermediary in its place, offers.
        place: where the origin is silent.
    """

    intermediary: Intermediary
    version: Version
    place: Place

    @property
    def applies(self) -> bool:
        return self.version in self.intermediary.versions

    @property
    def title(self) -> str:
        return f"{self.intermediary.name}, {self.version}, {self.place}"

    def truth(self, asked: Asked) -> Truth:
        """Return what is configured where somebody asks."""
        interval = PINGS[asked.ping]
        return Truth(
            idle=self.intermediary.idle,
            proxy=bool(self.intermediary.scheme),
            version=self.version,
            ping=DEFAULT_PING if interval is None else interval,
            ping_helps=self.intermediary.ping_helps,
        )


Found = dict[Asked, Seen]


def wrong_sentences(unit: Unit, found: Found) -> dict[Asked, list[Wrong]]:
    """Return what we said wrongly, by who was asked, without those that said nothing wrong."""
    judged = {asked: wrong(seen.said, unit.truth(asked)) for asked, seen in found.items() if asked.ping}
    return {asked: claims for asked, claims in judged.items() if claims}


def ask_all(
    unit: Unit, trust: Trust, folder: Path, everybody: Sequence[Asked] = EVERYBODY, more: Sequence[str] = ()
) -> Found:
    """Ask by everybody through the intermediary of a unit.

    Args:
        unit: the unit.
        trust: the certificates.
        folder: for what is written.
        everybody: who asks.
        more: further options of ``run`` and ``relay``.

    Raises:
        RuntimeError: the intermediary does not start.
    """
    intermediary = unit.intermediary
    behind: Version = "HTTP/1.1" if intermediary.name == "nginx-h2" else unit.version
    with ExitStack() as stack:
        upstream = stack.enter_context(origin(unit.place, behind, THINK, trust))
        ports: dict[Asked, int] = {}
        for asked in everybody:
            if intermediary.shared and ports:
                ports[asked] = ports[everybody[0]]
            else:
                started = running(intermediary, upstream.port, trust, folder / f"server-{asked.model}")
                ports[asked] = stack.enter_context(started)
        pool = stack.enter_context(ThreadPoolExecutor(len(everybody)))
        ways = {asked: _way(unit, upstream.port, port, trust) for asked, port in ports.items()}
        asking = {asked: pool.submit(_ask, asked, ways[asked], folder / asked.model, more) for asked in everybody}
        found = {asked: future.result() for asked, future in asking.items()}
        for asked, seen in found.items():
            seen.requests = requests_of(upstream, asked.model)
        return found


def _way(unit: Unit, origin_port: int, port: int, trust: Trust) -> Way:
    scheme = unit.intermediary.scheme
    proxy = f"{scheme}://127.0.0.1:{port}" if scheme else ""
    return Way(f"https://127.0.0.1:{origin_port if scheme else port}/v1", proxy, trust, unit.version == "HTTP/2")


def _ask(asked: Asked, way: Way, home: Path, more: Sequence[str]) -> Seen:
    if asked.who == "plain":
        return plain(way, asked.model)
    ask = run if asked.who == "run" else relayed
    return ask(way, asked.model, PINGS[asked.ping], home, *more)
