"""Write the second section of ``docs/intermediaries.md``: turns during which the network carries nothing for a while.

python -m intermediaries.outages [--seconds N]... [--jobs N]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from intermediaries import page
from intermediaries.asking import Seen, Way, begun, plain, run_command
from intermediaries.kinds import VERSIONS, Version
from intermediaries.network import SERVER, How, Network, impossible, inside, network, remove_leftovers
from intermediaries.running import PLACES, TEXT, Place, Trust, bytes_before, make_trust, origin, requests_of
from intermediaries.under_the_rule import forked
from unbroken.core.policy import Policy
from unbroken.lab import CuttingProxy, RecordedRequest, ScriptedAnswer, Upstream
from waiting import poll

COMMAND = "make outages"

SECONDS = (5.0, 15.0, 35.0, 50.0, 90.0)
LINK_DOWN = (5.0, 50.0)
"""The outages that are tried by taking the client's link down, too."""

REVIVE = 30.0
"""Seconds for which the old connection may come back, once a second one stands."""

THINK = 8.0
"""Seconds of silence of a model that speaks during the outage; less in a short one."""

SPEAKS_AFTER = 4.0
"""Seconds between the end of the outage and the first word of one that speaks after it."""

AT_PLACE = 0.5
"""Seconds from the moment at which all turns are at the place to the outage: what was sent has arrived."""

PATIENCE = 180.0
"""Seconds that a turn may take longer than the outage."""

STARTS = threading.Semaphore(2)
"""How many cells start their programs at a time: starting is what costs, all else is waiting."""

Speaks = Literal["during", "after"]
TITLES = {"plain": "openai SDK", "run": "`run`", "transport": "transport"}
WHO = tuple(TITLES)

INTRODUCTION = f"""\
A client and an origin in network namespaces of their own, with a link between them that drops every packet for a while,
in both directions; nobody is told. (In the second table the client's link is down, and it is told when it connects.)
The model speaks *during* the outage, up to {THINK:g} s after the request, or *after* it. *Proxy*: an HTTP proxy beside
the origin. Asked are, at the same moment, the plain openai SDK (over HTTP/2: with an HTTP/2 client, which it has not by
itself), `unbroken run`, and the SDK under Unbroken's transport; all as they come. “×2” is the number of requests that
the origin read; the seconds are those from the end of the outage to the end of the turn. *Back after*: seconds from the
end of the outage to the next byte on the plain SDK's connection, which is the old one.

What is demanded: never fewer whole answers than the plain SDK, and, where the old connection is back within
{REVIVE:g} s, no more requests than it makes. What is not so is marked with ✗.
"""


@dataclass(frozen=True)
class Cell:
    """One outage.

    Attributes:
        how: what happens to the packets.
        seconds: how long.
        way: "direct" or "proxy".
        version: HTTP version.
        place: how far the turns are when it begins.
        speaks: when the model goes on.
    """

    how: How
    seconds: float
    way: Literal["direct", "proxy"]
    version: Version
    place: Place
    speaks: Speaks

    @property
    def start(self) -> float:
        """Within how many seconds of the first request the outage must have begun."""
        return (min(THINK, 0.8 * self.seconds) if self.speaks == "during" else THINK) - 1.0

    @property
    def think(self) -> float:
        """For how many seconds the model is silent."""
        return self.start + (1.0 if self.speaks == "during" else self.seconds + SPEAKS_AFTER)

    @property
    def title(self) -> str:
        return f"{self.seconds:g} s {self.how}, {self.way}, {self.version}, {self.place}, speaks {self.speaks}"


@dataclass
class Outcome:
    """What came of a cell.

    Attributes:
        seen: by who asked.
        after: seconds from the end of the outage to the end of each turn; negative if it ended before.
        back: seconds from the end of the outage to the next byte of the plain SDK, ``None`` if none came.
    """

    seen: dict[str, Seen]
    after: dict[str, float]
    back: float | None

    def complaints(self) -> list[tuple[str, str]]:
        """Return what is not as demanded: of whom, and what."""
        return [(who, complaint) for who in WHO[1:] for complaint in self._complaints(self.seen[who])]

    def _complaints(self, seen: Seen) -> Iterator[str]:
        usual = self.seen["plain"]
        if usual.outcome == "whole" and seen.outcome != "whole":
            yield f"no whole answer, but the plain SDK has one ({seen.detail or seen.outcome})"
        elif seen.outcome in ("silent", "doubled"):
            yield seen.outcome
        if seen.requests > usual.requests and self.back is not None and self.back <= REVIVE:
            yield f"{seen.requests} requests instead of {usual.requests}, although the old connection came back"


class TooLateError(Exception):
    """The programs took so long to start that the model had spoken before the outage."""


def main() -> None:
    parser = argparse.ArgumentParser(description="turns during outages")
    parser.add_argument("--seconds", action="append", type=float, help="this outage alone, and write to stdout instead")
    parser.add_argument("--jobs", type=int, default=48, help="cells at a time (%(default)s); they mostly wait")
    arguments = parser.parse_args()
    if why := impossible():
        sys.exit(f"make outages: {why}")
    remove_leftovers()
    found = run(cells(arguments.seconds or SECONDS), arguments.jobs)
    if arguments.seconds:
        sys.stdout.write(f"{section(found)}\n")
    else:
        page.write(COMMAND, section(found))
        _say(f"written: {page.PAGE}")


def cells(seconds: Sequence[float]) -> list[Cell]:
    """Return the cells for these outages, the longest first."""
    found = []
    for length in sorted(seconds, reverse=True):
        for speaks in ("during", "after"):
            for place in PLACES:
                for version in VERSIONS:
                    found += [Cell("dropped", length, way, version, place, speaks) for way in ("direct", "proxy")]
                    if length in LINK_DOWN:
                        found.append(Cell("link down", length, "direct", version, place, speaks))
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(chosen: Sequence[Cell], jobs: int) -> dict[Cell, Outcome | str]:
    """Run these cells, many at a time, and tell of the progress."""
    begun_at, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="outages-") as folder, ThreadPoolExecutor(jobs) as pool:
        trust = make_trust(Path(folder), SERVER)
        running = {pool.submit(_measured, cell, trust, Path(folder) / str(n)): cell for n, cell in enumerate(chosen)}
        for count, future in enumerate(as_completed(running), 1):
            cell, outcome = running[future], future.result()
            found[cell] = outcome
            told = outcome if isinstance(outcome, str) else _in_short(outcome)
            _say(f"{time.monotonic() - begun_at:5.0f} s  {count}/{len(running)}  {cell.title}: {told}")
    return {cell: found[cell] for cell in chosen}


def _in_short(outcome: Outcome) -> str:
    told = ", ".join(f"{who} {seen.outcome} ×{seen.requests}" for who, seen in outcome.seen.items())
    return "; ".join([told, *(f"{who}: {complaint}" for who, complaint in outcome.complaints())])


def _measured(cell: Cell, trust: Trust, home: Path) -> Outcome | str:
    why = ""
    for number in range(3):
        try:
            return measure(cell, trust, home / str(number))
        except (TooLateError, AssertionError) as exc:
            why = f"not measured: {exc}"
    return why


def measure(cell: Cell, trust: Trust, home: Path, policy: Policy | None = None) -> Outcome:
    """Run one cell; ``policy`` is that of the transport.

    Raises:
        TooLateError: the model has spoken before the outage.
    """
    with network() as net, ExitStack() as stack:
        with inside(net.server):
            upstream = stack.enter_context(origin(cell.place, cell.version, cell.think, trust, SERVER))
            proxy = stack.enter_context(CuttingProxy(host=SERVER, allow_remote=True)) if cell.way == "proxy" else None
        url = f"http://{SERVER}:{proxy.port}" if proxy else ""
        way = Way(upstream.url, url, trust, cell.version == "HTTP/2")
        with inside(net.client):
            return _asked(cell, net, upstream, way, home, stack, policy)


def _asked(
    cell: Cell, net: Network, upstream: Upstream, way: Way, home: Path, stack: ExitStack, policy: Policy | None
) -> Outcome:
    with STARTS:
        run = stack.enter_context(begun(run_command(way, "run", None), home))
        transport = stack.enter_context(forked(way, "transport", net.client, policy))
        for program in (run, transport):
            program.wait_until_ready()
        limit = cell.seconds + PATIENCE
        asking = {"plain": partial(plain, way, "plain")}
        asking |= {"run": partial(run.ask, limit), "transport": partial(transport.ask, limit)}
        turns = _Turns(asking, limit)
        _wait_until_all_are_there(cell, upstream)
        net.cut(cell.how)
        if time.monotonic() - min(request.received_at for request in upstream.requests) > cell.start:
            raise TooLateError("the programs did not start in time")
    time.sleep(cell.seconds)
    mended = time.monotonic()
    net.mend(cell.how)
    turns.join()
    for who, seen in turns.seen.items():
        seen.requests = requests_of(upstream, who)
    after = {who: (seen.ended or time.monotonic()) - mended for who, seen in turns.seen.items()}
    return Outcome(turns.seen, after, _back(turns.seen["plain"], mended))


class _Turns:
    """The three turns, each on a thread of its own."""

    def __init__(self, asking: Mapping[str, Callable[[], Seen]], limit: float) -> None:
        self.seen = {who: Seen("waits") for who in asking}
        self._until = time.monotonic() + limit
        self._threads = [threading.Thread(target=self._ask, args=item, daemon=True) for item in asking.items()]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the ends, no longer than the limit."""
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()))

    def _ask(self, who: str, ask: Callable[[], Seen]) -> None:
        with contextlib.suppress(OSError, EOFError):  # the cell was given up
            self.seen[who] = ask()


def _wait_until_all_are_there(cell: Cell, upstream: Upstream) -> None:
    """Wait until the three turns are at the cell's place, and what they were sent has arrived."""
    poll(lambda: len([one for one in list(upstream.requests) if _is_there(cell, one)]) >= len(WHO), 60.0, every=0.01)
    time.sleep(AT_PLACE)


def _is_there(cell: Cell, request: RecordedRequest) -> bool:
    if cell.place == "after three tokens":
        return len(request.sent) >= bytes_before(ScriptedAnswer(text=TEXT), request.number)
    return cell.place == "before headers" or request.head_sent


def _back(seen: Seen, mended: float) -> float | None:
    """Return the seconds from the end of the outage to the first piece after it."""
    return next((arrived - mended for arrived in seen.arrived if arrived >= mended), None)


# The section


def section(found: dict[Cell, Outcome | str]) -> str:
    """Return the section of the page."""
    parts = ["## Through outages", page.head(COMMAND, {}), INTRODUCTION.strip(), _summary(found)]
    for how, title in (("dropped", "Packets dropped"), ("link down", "Link down")):
        chosen = {cell: outcome for cell, outcome in found.items() if cell.how == how}
        if chosen:
            parts += [f"### {title}", _table(chosen)]
    return "\n\n".join([*parts, *_complaints(found)])


def _table(found: dict[Cell, Outcome | str]) -> str:
    titles = ["outage", "way", "HTTP", "it begins", "the model speaks", "back after", *TITLES.values()]
    ordered = sorted(found.items(), key=lambda item: (item[0].seconds, item[0].way, item[0].version))
    return page.table(titles, [[*_left(cell), *_right(outcome)] for cell, outcome in ordered])


def _left(cell: Cell) -> list[str]:
    return [f"{cell.seconds:g} s", cell.way, cell.version, cell.place, f"{cell.speaks} it"]


def _right(outcome: Outcome | str) -> list[str]:
    if isinstance(outcome, str):
        return [outcome, "", "", ""]
    back = "never" if outcome.back is None else f"{outcome.back:.0f} s"
    amiss = {who for who, _ in outcome.complaints()}
    return [back, *(_cell(outcome.seen[who], outcome.after[who], " ✗" * (who in amiss)) for who in WHO)]


def _cell(seen: Seen, after: float, mark: str) -> str:
    words = {"whole": "**whole**", "silent": "**cut, silently**", "doubled": "**doubled**", "waits": "still waiting"}
    return f"{words.get(seen.outcome, seen.outcome)} ×{seen.requests}, {after:.0f} s{mark}"


def _summary(found: dict[Cell, Outcome | str]) -> str:
    measured = [outcome for outcome in found.values() if not isinstance(outcome, str)]
    rows = []
    for who in WHO:
        seen = [outcome.seen[who] for outcome in measured]
        whole = sum(one.outcome == "whole" for one in seen)
        mean = sum(outcome.after[who] for outcome in measured) / max(1, len(measured))
        rows.append([TITLES[who], f"{whole} of {len(seen)}", str(sum(one.requests for one in seen)), f"{mean:.1f} s"])
    return page.table(["", "whole answers", "requests", "end of the turn after that of the outage, on average"], rows)


def _complaints(found: dict[Cell, Outcome | str]) -> Iterator[str]:
    yield "### Not as demanded"
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell, outcome in found.items():
        for complaint in [] if isinstance(outcome, str) else outcome.complaints():
            cells[complaint].append(cell.title)
    rows = [[TITLES[who], what, str(len(where)), where[0]] for (who, what), where in cells.items()]
    yield page.table(["who", "what", "cells", "one of them"], rows) if rows else "Nothing."


if __name__ == "__main__":
    main()
