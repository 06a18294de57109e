"""Write ``docs/verdict-table.md``: what `unbroken lab verdict` says of real clients, alone and with Unbroken.

python -m real_clients.verdict_table [--only NAME] [--page FILE]

Each verdict is kept in ``tests/real_clients/verdicts``, with the requests and times behind it; with ``--only`` those on
one client are made anew, and the page from all. A client that is not installed is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from real_clients.judged import JUDGED
from real_clients.running import UNBROKEN, demand
from real_clients.table import version
from sdks import matrix
from unbroken import __version__
from unbroken.lab import catalogue
from unbroken.lab.verdict import FINE, OUTCOMES

PAGE = matrix.ROOT / "docs" / "verdict-table.md"
KEPT = Path(__file__).with_name("verdicts")
JOBS = "2"
TIMEOUT = 30
PATIENCE = {"Gemini CLI": 60, "aider": 90, "opencode": 90}
"""Seconds that a run may take; more for who takes long to start."""

ORDER = ("curl", "openai SDK", "anthropic SDK", "litellm", "Vercel AI SDK", "Codex", "Claude Code", "opencode")
ORDER = (*ORDER, "Gemini CLI", "aider")

MODES = ("alone", "with Unbroken")

INTRODUCTION = """\
# Verdicts on real clients

What [`unbroken lab verdict`](verdict.md) says of programs that people use, each alone and started by `unbroken exec`,
which puts Unbroken {unbroken} between it and the server. Each asks one question in {number} scenarios, one of each kind
of the {all} that the lab has, and is judged by what it tells its user, by its exit code, and by its requests. curl
shows the events themselves, and an error in them counts as told. For an SDK it is a program of a few lines that asks
it, and shows the text and nothing else. This page is made by one command, which installs the programs first:

```console
$ make verdict-table
```
"""

BY_SCENARIO = """
## By scenario

*whole*: the whole answer, once. *error*: an error that says so. **silent**: a part of the answer, or nothing, taken for
all of it. **twice**: a part of the answer more than once. **hung**: still running after 30 s, or after 60 s (Gemini
CLI) or 90 s (aider, opencode), which take longer to start. **hammers**: asked again where nobody should, or too early,
or more than 12 times. **pays twice**: asked again although a whole answer had come, or for nothing. –: it does not
happen to this client, or not within that time, and the table above leaves it out. Where two are given, the second is
with Unbroken.
"""

LEFT = """
## What is still wrong with Unbroken

What has reached the client cannot be taken back, and what the client does with a loud error, or asks by itself, is its
own decision. Where every attempt is lost, each request with which it asks again is replayed three times, so that
some ask more often than alone; `--replays 0` leaves that to the client.
"""

NOT_RUN = 'not run yet; `make verdict-table ONLY="{name}"` adds it'

WORDS = {
    "survived": "whole",
    "failed loudly": "error",
    "failed silently": "**silent**",
    "doubled output": "**twice**",
    "hung": "**hung**",
    "hammered": "**hammers**",
    "paid twice": "**pays twice**",
    "not judged": "–",
}
COLUMNS = tuple(reversed(OUTCOMES[:-1]))

SCENARIOS = (
    "nothing",
    "silence-in-prelude",
    "reset-at-connect",
    "reset-before-headers",
    "reset-always",
    "empty-body",
    "reset-in-prelude",
    "clean-end-in-prelude",
    "idle-cut-in-prelude",
    "reset-in-answer",
    "clean-end-in-answer",
    "clean-end-in-event",
    "malformed-event",
    "error-event-in-prelude",
    "error-event-in-answer",
    "content-filter",
    "no-terminator",
    "open-after-done",
    "bad-request",
    "rate-limited",
    "rate-limited-for-long",
    "quota-exhausted",
    "unavailable",
    "web-page",
)
"""Of the catalogue, one of each kind; the others differ from these in their framing or in their transport."""

Report = Mapping[str, Any]
"""The JSON of one verdict; ``problem`` if there is none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ORDER)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in (given.only,) if given.only else ORDER:
        for mode in MODES:
            _keep(name, mode, _missing(name) or _judged(name, mode))
    given.page.write_text(page(kept()), encoding="utf-8")


def _missing(name: str) -> Report | None:
    try:
        demand(JUDGED[name])
    except (pytest.skip.Exception, pytest.fail.Exception) as exc:
        return {"problem": str(exc)}
    return None


def _judged(name: str, mode: str) -> Report:
    sys.stderr.write(f"· {name}, {mode}\n")
    client = JUDGED[name]
    judged = [sys.executable, "-m", "real_clients.judged"]
    if mode == "alone":
        program = [*judged, name]
    elif client.by_environment:
        program = [*judged, "--exec", name]
    else:  # it takes the address from its options, so that `unbroken exec` has to name the relay's
        program = [*UNBROKEN, "exec", "--", *judged, name]
    named = [word for scenario in SCENARIOS for word in ("--scenario", scenario)]
    limits = ("--jobs", JOBS, "--timeout", str(PATIENCE.get(name, TIMEOUT)))
    ran = subprocess.run(
        [*UNBROKEN, "lab", "verdict", "--json", *limits, "--told", client.complaint, *named, "--", *program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode not in (0, 1):
        return {"problem": ran.stderr.strip()[-500:]}
    found: dict[str, Any] = json.loads(ran.stdout)
    fields = ("scenario", "verdict", "found", "reasons", "requests", "seconds", "exit_code")
    return {
        "version": version(client),
        "date": datetime.now(UTC).date().isoformat(),
        "dialect": found["dialect"],
        "seconds": found["seconds"],
        "scenarios": [{key: one[key] for key in fields} for one in found["scenarios"]],
    }


def _keep(name: str, mode: str, report: Report) -> None:
    _file(name, mode).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def kept() -> dict[str, dict[str, Report]]:
    """The verdicts that are kept, by client and by mode."""
    return {name: _kept(name) for name in ORDER}


def _kept(name: str) -> dict[str, Report]:
    files = {mode: _file(name, mode) for mode in MODES}
    return {
        mode: json.loads(file.read_text("utf-8")) if file.exists() else {"problem": NOT_RUN.format(name=name)}
        for mode, file in files.items()
    }


def _file(name: str, mode: str) -> Path:
    return KEPT / f"{name} {mode}.json".replace(" ", "-").lower()


def page(found: Mapping[str, Mapping[str, Report]]) -> str:
    """The page for the verdicts on each client, by mode."""
    complete = {name: modes for name, modes in found.items() if not any("problem" in one for one in modes.values())}
    parts = [INTRODUCTION.format(unbroken=__version__, number=len(SCENARIOS), all=len(catalogue()))]
    parts += [*_summary(complete), BY_SCENARIO, *_by_scenario(complete), *_left(complete), *_left_out(found)]
    return "\n".join(parts) + "\n"


def _summary(found: Mapping[str, Mapping[str, Report]]) -> Iterator[str]:
    yield f"| client | version, day | | {' | '.join(COLUMNS)} |"
    yield f"|---|---|---|{'---|' * len(COLUMNS)}"
    for name, modes in found.items():
        for mode, report in modes.items():
            counts = Counter(one["verdict"] for one in report["scenarios"])
            cells = [_number(outcome, counts[outcome]) for outcome in COLUMNS]
            what = (name, f"{report['version']}, {report['date']}") if mode == MODES[0] else ("", "")
            yield f"| {' | '.join([*what, mode, *cells])} |"


def _number(outcome: str, count: int) -> str:
    if not count:
        return ""
    return str(count) if outcome in FINE else f"**{count}**"


def _by_scenario(found: Mapping[str, Mapping[str, Report]]) -> Iterator[str]:
    yield f"| scenario | {' | '.join(found)} |"
    yield f"|---|{'---|' * len(found)}"
    for scenario in SCENARIOS:
        cells = [_cell([_verdict(report, scenario) for report in modes.values()]) for modes in found.values()]
        yield f"| {scenario} | {' | '.join(cells)} |"
    known = catalogue()
    yield "\nThe scenarios:\n"
    yield from (f"* *{scenario}*: {known[scenario].about}" for scenario in SCENARIOS)


def _verdict(report: Report, scenario: str) -> str:
    """The verdict on one run; none where the scenario is not one of the client's dialect."""
    return next((one["verdict"] for one in report["scenarios"] if one["scenario"] == scenario), "not judged")


def _cell(verdicts: Sequence[str]) -> str:
    alone, with_unbroken = (WORDS[verdict] for verdict in verdicts)
    return alone if alone == with_unbroken else f"{alone} → {with_unbroken}"


def _left(found: Mapping[str, Mapping[str, Report]]) -> Iterator[str]:
    """What is still worse than a loud failure with Unbroken, with the reasons."""
    yield LEFT
    for name, modes in found.items():
        for one in modes[MODES[1]]["scenarios"]:
            if one["verdict"] not in FINE:
                yield f"* {name}, *{one['scenario']}*: {one['verdict']} ({'; '.join(one['reasons'])})"


def _left_out(found: Mapping[str, Mapping[str, Report]]) -> Iterator[str]:
    problems = {name: [one["problem"] for one in modes.values() if "problem" in one] for name, modes in found.items()}
    if any(problems.values()):
        yield "\n## Left out\n"
        yield from (f"* {name}: {reasons[0]}" for name, reasons in problems.items() if reasons)


if __name__ == "__main__":
    main()
