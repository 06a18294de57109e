"""Write the first section of ``docs/intermediaries.md``: turns through real intermediaries.

python -m intermediaries.matrix [--only NAME]... [--jobs N] [--minutes N]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from intermediaries import page
from intermediaries.asking import Seen
from intermediaries.cell import DEFAULT_PING, EVERYBODY, PINGS, THINK, Asked, Found, Unit, ask_all, wrong_sentences
from intermediaries.judge import Wrong, advice
from intermediaries.kinds import BY_NAME, INTERMEDIARIES, VERSIONS, Intermediary, find
from intermediaries.running import PLACES, Trust, make_trust

COMMAND = "make intermediaries"

INTRODUCTION = f"""\
A path that cuts what is silent for about two seconds, and a model that is silent for {THINK:g} s: before its headers,
after them, or after three tokens. PING is left as it comes (every {DEFAULT_PING:g} s, which is too seldom for timers
this short), asked for every {PINGS["on"]:g} s, and turned off. *HTTP/1.1*: the endpoint offers nothing else; *HTTP/2*:
it offers both, and the plain SDK is given an HTTP/2 client, which it has not by itself.

| in the tables | what its user gets |
|---|---|
| **whole** | the whole answer, once |
| error | an error that says so |
| **cut, silently** | a part of the answer, as if that were all of it |
| **doubled** | a part of the answer twice |

“×3” means that the origin got three requests. As they come, nobody retries after the first token.
"""

WORDS = {
    "whole": "**whole**",
    "error": "error",
    "silent": "**cut, silently**",
    "doubled": "**doubled**",
    "waits": "still waiting",
}

Matrix = dict[Unit, Found | str]
"""What was seen, or why nothing was."""

VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")


def main() -> None:
    arguments = _arguments()
    chosen = [BY_NAME[name] for name in arguments.only] or list(INTERMEDIARIES)
    matrix = run(chosen, arguments.jobs, arguments.minutes * 60)
    text = section(chosen, matrix)
    if arguments.only:
        sys.stdout.write(f"{text}\n")
    else:
        page.write(COMMAND, text)
        _say(f"written: {page.PAGE}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="turns through real intermediaries")
    parser.add_argument("--only", action="append", default=[], choices=sorted(BY_NAME), help="write to stdout instead")
    parser.add_argument("--jobs", type=int, default=8, help="units at a time (%(default)s), each of seven programs")
    parser.add_argument("--minutes", type=float, default=24, help="no unit starts later than this (%(default)s)")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(chosen: Sequence[Intermediary], jobs: int, limit: float) -> Matrix:
    """Run every unit of these intermediaries, some at a time, and tell of the progress."""
    units = [Unit(one, version, place) for one in chosen for place in PLACES for version in VERSIONS]
    matrix: Matrix = {unit: _why_not(unit) for unit in units}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="intermediaries-") as folder, ThreadPoolExecutor(jobs) as pool:
        Path(folder).chmod(0o755)  # some programs give up root's rights
        trust = make_trust(Path(folder), "127.0.0.1", "localhost")

        def measure(unit: Unit) -> Found | str:
            if time.monotonic() - begun > limit:
                return "no time left"
            home = Path(tempfile.mkdtemp(dir=folder))
            home.chmod(0o755)
            return _measured(unit, trust, home)

        running = {pool.submit(measure, unit): unit for unit in units if not matrix[unit]}
        for count, future in enumerate(as_completed(running), 1):
            unit = running[future]
            matrix[unit] = future.result()
            _say(f"{time.monotonic() - begun:5.0f} s  {count}/{len(running)}  {unit.title}: {_in_short(unit, matrix)}")
    return matrix


def _measured(unit: Unit, trust: Trust, home: Path) -> Found | str:
    """Measure a unit; a port that was taken in the meantime is the reason for a second try."""
    for number in range(2):
        try:
            return ask_all(unit, trust, home / str(number))
        except RuntimeError as exc:
            failed = str(exc)
    return failed


def _why_not(unit: Unit) -> str:
    if not unit.intermediary.installed:
        return f"not installed: `{unit.intermediary.get}`"
    return "" if unit.applies else f"speaks only {unit.intermediary.versions[0]}"


def _in_short(unit: Unit, matrix: Matrix) -> str:
    found = matrix[unit]
    if isinstance(found, str):
        return found
    cells = ", ".join(f"{asked.model.rstrip('-')} {seen.outcome} ×{seen.requests}" for asked, seen in found.items())
    count = sum(map(len, wrong_sentences(unit, found).values()))
    return f"{cells}{f'; {count} wrong claims' if count else ''}"


# The section


def section(chosen: Sequence[Intermediary], matrix: Matrix) -> str:
    """Return the section of the page."""
    parts = ["## Through real intermediaries", page.head(COMMAND, _versions(matrix)), INTRODUCTION.strip()]
    parts += [_summary(chosen, matrix)]
    for one in chosen:
        parts += _of(one, {unit: found for unit, found in matrix.items() if unit.intermediary is one})
    return "\n\n".join([*parts, *_wrong(matrix)])


def _versions(matrix: Matrix) -> Mapping[str, str]:
    measured = [unit.intermediary for unit, found in matrix.items() if not isinstance(found, str)]
    programs = {one.program: one for one in measured if one.installed}
    return {program: version_of(one) for program, one in sorted(programs.items())}


def version_of(one: Intermediary) -> str:
    """Return the version of the program of an intermediary."""
    ran = subprocess.run([find(one.program) or "", *one.version], capture_output=True, text=True, check=False)
    match = VERSION.search(ran.stdout + ran.stderr)
    return match[0].rstrip(".") if match else "of an unknown version"


def _summary(chosen: Sequence[Intermediary], matrix: Matrix) -> str:
    """Return how many of the units are whole, by who asks."""
    rows = []
    for one in chosen:
        founds = [found for unit, found in matrix.items() if unit.intermediary is one and not isinstance(found, str)]
        counts = [sum(found[asked].outcome == "whole" for found in founds) for asked in EVERYBODY]
        cells = [f"{count} of {len(founds)}" for count in counts] if founds else ["not run"] * len(EVERYBODY)
        rows.append([f"[{one.name}](#{one.name})", *cells])
    return "Whole answers:\n\n" + page.table(["", *_TITLES], rows)


_TITLES = ["openai SDK", *(f"`{who}`, PING {how}" for who in ("run", "relay") for how in ("by default", "on", "off"))]


def _of(one: Intermediary, matrix: Matrix) -> Iterator[str]:
    yield f"### {one.name}"
    where = f"as a proxy, `{one.scheme}://`" if one.scheme else "in the place of the origin"
    yield textwrap.fill(f"Asked {where}. Idle timer: {one.timer}. {one.note}".strip(), 120, break_on_hyphens=False)
    whys = {found for found in matrix.values() if isinstance(found, str)}
    if all(isinstance(found, str) for found in matrix.values()):
        yield "; ".join(sorted(whys)) + "."
        return
    rows = [[unit.place, unit.version, *_cells(found)] for unit, found in matrix.items()]
    yield page.table(["silent", "HTTP", *_TITLES], rows)
    said = list(_said(matrix))
    yield "What we say:\n\n" + "\n".join(said) if said else "There is nothing to say."


def _cells(found: Found | str) -> list[str]:
    if isinstance(found, str):
        return [found, *[""] * (len(EVERYBODY) - 1)]
    return [_cell(found[asked]) for asked in EVERYBODY]


def _cell(seen: Seen) -> str:
    words = WORDS[seen.outcome]
    return f"{words} ×{seen.requests}" if seen.requests != 1 else words


def _said(matrix: Matrix) -> Iterator[str]:
    """Yield the errors and the advice of ``unbroken run``, each with where it was given."""
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for unit, found in matrix.items():
        for asked, seen in found.items() if not isinstance(found, str) else ():
            for sentence in dict.fromkeys(map(_without_seconds, _sentences(asked, seen))):
                cells[sentence][f"{unit.version} {unit.place}"].append(asked.ping)
    for sentence, places in cells.items():
        yield f"* “{sentence}” ({'; '.join(f'{place}{_pings(pings)}' for place, pings in places.items())})"


def _pings(pings: Sequence[str]) -> str:
    return "" if len(pings) == len(PINGS) else f", PING {' and '.join(pings)}"


def _without_seconds(sentence: str) -> str:
    """Return the sentence without the seconds and the ports that differ from run to run."""
    return re.sub(r"(?<=after )(about )?[\d.]+ s", "N s", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", sentence))


def _sentences(asked: Asked, seen: Seen) -> Iterator[str]:
    if asked.who == "run":
        told = advice(seen.said)
        for sentence in seen.said:
            if sentence.startswith("unbroken: "):
                yield sentence.removeprefix("unbroken: ").partition(f"; {told[-1]}" if told else "\0")[0]
        yield from told


def _wrong(matrix: Matrix) -> Iterator[str]:
    yield "### Sentences that are wrong"
    cells: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for unit, found in matrix.items():
        for asked, claims in (wrong_sentences(unit, found) if not isinstance(found, str) else {}).items():
            for claim in claims:
                cells[_key(claim)].append(f"{unit.title}, {asked.who}, PING {asked.ping}")
    if not cells:
        yield "None: each sentence was compared with what is configured (`tests/intermediaries/judge.py`)."
        return
    yield "Each sentence was compared with what is configured (`tests/intermediaries/judge.py`). These do not hold:"
    rows = [[f"“{claim}”", reason, sentence, _where(where)] for (claim, reason, sentence), where in cells.items()]
    yield page.table(["claim", "but", "in", "cells"], rows)


def _key(wrong: Wrong) -> tuple[str, str, str]:
    """Return what is alike in the same words: without the turn's id, and with the advice alone, where it is advice."""
    told = advice([wrong.sentence])
    return wrong.claim, wrong.reason, textwrap.shorten(_without_seconds(told[0] if told else wrong.sentence), 200)


def _where(cells: Sequence[str]) -> str:
    unique = list(dict.fromkeys(cells))
    rest = f"; and {len(unique) - 3} more" if len(unique) > 3 else ""
    return "; ".join(unique[:3]) + rest


if __name__ == "__main__":
    main()
