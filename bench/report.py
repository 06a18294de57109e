"""The page of a run: goals, tables and plots; and the run as JSON, from which the page can be written again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bench import client, growth, keeping, recovery, relay, startup
from bench.measure import Key, Results, summary
from bench.plot import bars, lines, number
from bench.relays import ASGI, LITELLM_PROXY, NGINX, UNBROKEN

ASYNCIO = client.group("asyncio", "http")
SYNC = client.group("sync", "http")
TLS = client.group("asyncio", "https")
TLS_SYNC = client.group("sync", "https")
MANY = relay.LEVELS[-1]

METHOD = (
    "CPU is what the scheduler counted for the contestant's process with all of its threads, also ended ones. The",
    "server is the same process for every contestant and runs none of Unbroken's code. *Paced* is one event of",
    "310 bytes each 2 ms, *burst* as fast as they are taken. Contestants take turns within each round; a cell is",
    "the median of the rounds with its quartiles, and the ratios of the goals are medians of each round's ratio.",
    "A busy machine makes every figure larger: read ratios. Time *added* to the first byte is a relay's time less that",
    "without a relay in the same round: below zero it says only that the difference is smaller than the noise. Idle",
    "streams are measured once, and the LiteLLM proxy is asked for fewer events and turns than the others.",
    "",
    "Keeping: `--keep 10`, one connection at a time; the store's CPU is that of its own process. An attached reader",
    "asks under the key of a turn that runs, of which an event comes each 5 ms; *behind* is from an event's arrival at",
    "the first client to its arrival at the reader, both in one process. Replicas: 64 connections, turns of 20 events.",
    "The relays share the machine's cores with the store, the client and the upstream, which are told beside them:",
    "where all cores are in use, two relays cannot have twice the turns of one.",
)


class Goal(NamedTuple):
    """A figure that is to stay below another's multiple, or, without another, below a limit."""

    text: str
    one: Key
    limit: float
    other: Key | None = None


def against(text: str, side: str, figure: str, one: str, limit: float, other: str) -> Goal:
    return Goal(text, (side, figure, one), limit, (side, figure, other))


def client_goals() -> Iterator[Goal]:
    ours, typed, plain = "unbroken, bytes", "unbroken, typed", "httpx2, bytes"
    for loop in client.LOOPS:
        side, tls = client.group(loop, "http"), client.group(loop, "https")
        for figure in (client.PACED, client.BURST):
            kind = figure.rpartition(", ")[2]
            yield against(f"client, {loop}, {kind}: bytes at most 0.5x httpx2", side, figure, ours, 0.5, plain)
            other = (side, figure, plain)
            yield Goal(f"client, {loop}, {kind}: typed at most 0.7x httpx2's bytes", (side, figure, typed), 0.7, other)
        for figure, times in ((client.PACED, 3), (client.BURST, 30)):
            kind = figure.rpartition(", ")[2]
            text = f"client, {loop}, {kind}: typed at least {times}x under the openai SDK"
            yield against(text, side, figure, typed, 1 / times, "openai SDK")
        for figure, limit in ((client.PACED, 0.5), (client.BURST, 1.0)):
            kind = figure.rpartition(", ")[2]
            text = f"client, {loop}, HTTP/2 over TLS, {kind}: at most {limit}x httpx2"
            yield against(text, tls, figure, ours, limit, plain)
        for sdk in ("openai SDK", "anthropic SDK"):
            for figure in (client.PACED, client.BURST):
                kind = figure.rpartition(", ")[2]
                text = f"client, {loop}, {kind}: {sdk} faster with unbroken.Transport"
                yield against(text, side, figure, f"{sdk} + unbroken.Transport", 1.0, sdk)


def relay_goals() -> Iterator[Goal]:
    side = relay.SIDE
    yield against("relay, paced: at most 3x nginx", side, relay.PACED, UNBROKEN, 3, NGINX)
    yield against("relay, paced: at most half of ASGI + httpx2", side, relay.PACED, UNBROKEN, 0.5, ASGI)
    yield against("relay, burst: at most 10x nginx", side, relay.BURST, UNBROKEN, 10, NGINX)
    for connections in relay.CONNECTIONS:
        for share in (50, 99):
            figure = relay.first_byte(share, connections)
            text = f"relay, first byte, p{share}, {connections} at once: not above ASGI + httpx2"
            yield against(text, side, figure, UNBROKEN, 1, ASGI)
    yield Goal(f"relay, {MANY} open: at most 40 KiB a stream", (relay.IDLE, relay.memory(MANY), UNBROKEN), 40)
    figures = [relay.PACED, relay.BURST, relay.TURN, *(relay.first_byte(50, number) for number in relay.CONNECTIONS)]
    for figure in figures:
        yield against(f"relay, {figure}: at least 15x under LiteLLM", side, figure, UNBROKEN, 1 / 15, LITELLM_PROXY)
    held = relay.memory(relay.LEVELS[0])
    yield against(f"relay, {held}: at least 15x under LiteLLM", relay.IDLE, held, UNBROKEN, 1 / 15, LITELLM_PROXY)


def startup_goals() -> Iterator[Goal]:
    yield Goal("start-up, unbroken run: at most 120 ms of CPU", (startup.SIDE, startup.FIGURE, startup.RUN), 120)


def reached(results: Results, goal: Goal) -> float | None:
    """Return the ratio of a goal, or its value where it has a limit of its own."""
    if goal.other:
        return results.ratio(goal.one, goal.other)
    values = results.values.get(goal.one)
    return summary(values).median if values else None


def goals(results: Results) -> Iterator[str]:
    yield "| goal | limit | measured | |"
    yield "|---|---|---|---|"
    for goal in (*relay_goals(), *client_goals(), *startup_goals()):
        if (value := reached(results, goal)) is not None:
            unit = "x" if goal.other else ""
            met = "met" if value <= goal.limit else "**not met**"
            yield f"| {goal.text} | {number(goal.limit)}{unit} | {number(value)}{unit} | {met} |"
    if added := results.values.get((startup.SIDE, startup.FIGURE, startup.IMPORT)):
        bare = results.values[startup.SIDE, startup.FIGURE, startup.BARE]
        value = summary([one - other for one, other in zip(added, bare, strict=True)]).median
        met = "met" if value <= 10 else "**not met**"
        yield f"| start-up, `import unbroken`: adds at most 10 ms | 10 | {number(value)} | {met} |"
    for (side, _, name), factor in straightness(results).items():
        met = "met" if factor <= 1.25 else "**not met**"
        yield f"| {side}, {name}: the last part at most 1.25x as steep | 1.25x | {number(factor)}x | {met} |"


def straightness(results: Results) -> dict[Key, float]:
    """Return for each line of CPU how much steeper its last part is than all before it; the lines of ours alone."""
    found = {}
    for side, _, _ in growth.AXES.values():
        for name, points in series(results, side).items():
            if "unbroken" in name and len(points) > 2:
                (x0, y0), *_, (x1, y1), (x2, y2) = sorted(points.items())
                found[side, "", name] = (y2 - y1) / (x2 - x1) / ((y1 - y0) / (x1 - x0))
    return found


def series(results: Results, side: str) -> dict[str, dict[float, float]]:
    """Return the lines of a side whose figures are points of an axis."""
    found: dict[str, dict[float, float]] = {}
    for (where, figure, name), values in results.values.items():
        if where == side:
            found.setdefault(name, {})[float(figure)] = summary(values).median
    return found


def table(results: Results, side: str) -> Iterator[str]:
    """Write the medians of a side with their quartiles: a row for each contestant."""
    here = [key for key in results.values if key[0] == side]
    figures = list(dict.fromkeys(figure for _, figure, _ in here))
    yield "| | " + " | ".join(figures) + " |"
    yield "|---|" + "---|" * len(figures)
    for name in dict.fromkeys(name for _, _, name in here):
        yield f"| {name} | " + " | ".join(cell(results.values.get((side, figure, name))) for figure in figures) + " |"


def cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    told = summary(values)
    if len(values) == 1:
        return number(told.median)
    return f"{number(told.median)} ({number(told.low)}–{number(told.high)})"


def medians(results: Results, side: str, figure: str) -> dict[str, float]:
    return {key[2]: summary(values).median for key, values in results.values.items() if key[:2] == (side, figure)}


def plots(results: Results) -> dict[str, tuple[str, str]]:
    """Return the title and the picture of each plot, by the name of its file."""
    found = {}
    wanted = [
        ("relay-paced", "A relay's CPU for an event of 310 bytes, one at a time", relay.SIDE, relay.PACED),
        ("relay-burst", "A relay's CPU for an event, as fast as they come", relay.SIDE, relay.BURST),
        ("relay-idle", "A relay's memory for an open, silent stream", relay.IDLE, relay.memory(relay.LEVELS[0])),
        ("client-paced", "A client's CPU for an event, one at a time (asyncio)", ASYNCIO, client.PACED),
        ("client-burst", "A client's CPU for an event, as fast as they come (asyncio)", ASYNCIO, client.BURST),
        ("client-tls-paced", "The same over HTTP/2 and TLS, one at a time (asyncio)", TLS, client.PACED),
        ("start-up", "CPU of whole processes", startup.SIDE, startup.FIGURE),
    ]
    for file, title, side, figure in wanted:
        if values := {name: value for name, value in medians(results, side, figure).items() if value > 0}:
            found[file] = (title, bars(title, figure.split(",")[0], values))
    axes = [(side, "ms CPU") for side, _, _ in growth.AXES.values()]
    axes += [(growth.STREAMS, "µs CPU an event"), (growth.PIECES, "ms CPU")]
    for side, unit in axes:
        if drawn := series(results, side):
            what = side.partition(", ")[2]
            title = f"CPU by {what}" + (", 1,000 events a second in all" if side == growth.STREAMS else "")
            found[side.replace(", ", "-").replace(" ", "-")] = (title, lines(title, what, unit, drawn))
    return found


def page(results: Results, about: dict[str, Any]) -> str:
    return "\n".join(_page(results, about)) + "\n"


def _page(results: Results, about: dict[str, Any]) -> Iterator[str]:
    yield "# What it costs"
    yield ""
    yield "Written by `make bench` from [results.json](results.json); nothing here is typed by hand."
    yield "[What bounds it](bounds.md) has the profile behind each goal that is not met."
    yield ""
    yield from METHOD
    yield ""
    for name, value in about.items():
        told = ", ".join(f"{key} {version}" for key, version in value.items()) if isinstance(value, dict) else value
        yield f"* {name}: {told}"
    for side, (began, ended) in results.load.items():
        yield f"* load average, {side}: {began:.1f} as it began, {ended:.1f} as it ended"
    for name, reason in results.missing.items():
        yield f"* left out: {name}: {reason}"
    yield from ("", "## Goals", "", *goals(results))
    for side in dict.fromkeys(key[0] for key in results.values):
        yield from ("", f"## {side[0].upper()}{side[1:]}", "", *table(results, side))
    yield from ("", "## Plots")
    for file, (title, _) in plots(results).items():
        yield from ("", f"![{title}]({file}.svg)")


def as_json(results: Results, about: dict[str, Any]) -> str:
    """Write a run with every value of every round."""
    told = [
        {"side": key[0], "figure": key[1], "contestant": key[2], **asdict(summary(values)), "values": values}
        for key, values in results.values.items()
    ]
    whole = {"about": about, "load": results.load, "missing": results.missing, "measured": told}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def updated(old: Results, about: dict[str, Any], new: Results, now: dict[str, Any]) -> tuple[Results, dict[str, Any]]:
    """Put the sides of a later run in the place of those of a whole one."""
    sides = {side for side, _, _ in new.values}
    kept = {key: values for key, values in old.values.items() if key[0] not in sides}
    told = f"{now['date']}, {now['commit']}, {now['rounds']} rounds"
    results = Results({**kept, **new.values}, {**old.missing, **new.missing}, {**old.load, **new.load})
    return results, {**now, **about, **{f"{name}, by itself": told for name in new.load}}


def write(results: Results, about: dict[str, Any], folder: Path) -> None:
    """Write JSON, page and plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(as_json(results, about))
    (folder / "README.md").write_text(page(results, about))
    for file, (_, picture) in plots(results).items():
        (folder / f"{file}.svg").write_text(picture)


def read(file: Path) -> tuple[Results, dict[str, Any]]:
    """Read a run from its JSON."""
    whole = json.loads(file.read_text())
    values = {(one["side"], one["figure"], one["contestant"]): one["values"] for one in whole["measured"]}
    return Results(values, whole["missing"], whole["load"]), whole["about"]


SIDES = {
    "relay": relay.measure,
    "keeping": keeping.measure,
    "replicas": keeping.measure_replicas,
    "client": client.measure,
    "recovery": recovery.measure,
    "startup": startup.measure,
    "growth": growth.measure,
}
