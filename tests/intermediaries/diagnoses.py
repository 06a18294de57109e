"""Write the second section of ``docs/intermediaries.md``: what the doctor says behind each intermediary.

python -m intermediaries.diagnoses
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from intermediaries import page
from intermediaries.doctor import Diagnosis, diagnosed
from intermediaries.judge import LENIENCE
from intermediaries.kinds import INTERMEDIARIES, TIMER, Intermediary
from intermediaries.matrix import version_of
from intermediaries.running import make_trust

COMMAND = "make diagnoses"

LONGEST = 10.0
"""Seconds of silence that the doctor tries."""

AT_ONCE = 3

INTRODUCTION = """
[The doctor](doctor.md) is run as its user would, with `--max 10`, behind each of the intermediaries above, which has
the same timer of about two seconds: through proxies to an HTTP/2 provider, and to a server of its own; to `unbroken
lab echo` behind servers that read HTTP. The limit that it finds is compared with the timer. That of dante fires late,
or not at all, while other connections of the process are busy, as those are which the doctor keeps.
"""

Found = Mapping[str, Diagnosis | str]
"""What the doctor said, or why it was not run, by the name of the intermediary."""


def main() -> None:
    page.write(COMMAND, section(run()))
    sys.stderr.write(f"written: {page.PAGE}\n")


def run() -> Found:
    """Run the doctor behind every intermediary that is installed, some at a time."""
    with tempfile.TemporaryDirectory(prefix="diagnoses-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        Path(folder).chmod(0o755)  # some programs give up root's rights
        trust = make_trust(Path(folder), "127.0.0.1", "localhost")

        def examine(one: Intermediary) -> Diagnosis | str:
            if not one.installed:
                return f"not installed: `{one.get}`"
            home = Path(folder) / one.name
            home.mkdir(mode=0o755)
            try:
                return diagnosed(one, trust, home, TIMER, LONGEST)
            except RuntimeError as exc:
                return str(exc)

        return dict(zip([one.name for one in INTERMEDIARIES], pool.map(examine, INTERMEDIARIES), strict=True))


def section(found: Found) -> str:
    """Return the section of the page."""
    there = {one.program: one for one in INTERMEDIARIES if isinstance(found[one.name], Diagnosis)}
    versions = {program: version_of(one) for program, one in sorted(there.items())}
    rows = [[f"[{one.name}](#{one.name})", one.timer, *_cells(one, found[one.name])] for one in INTERMEDIARIES]
    titles = ["", "idle timer", "limit found", "the doctor says", "next"]
    parts = ["## What the doctor says", page.head(COMMAND, versions, sdk=False), INTRODUCTION.strip()]
    return "\n\n".join([*parts, page.table(titles, rows)])


def _cells(one: Intermediary, told: Diagnosis | str) -> list[str]:
    if isinstance(told, str):
        return [told, "", ""]
    says = "; ".join(f"{finding['code']}: {finding['text']}" for finding in told.findings) or "nothing is wrong"
    steps = "; ".join(finding["next"] for finding in told.findings if finding["next"])
    return [_limit(one, told), _without_ports(says), steps]


def _limit(one: Intermediary, told: Diagnosis) -> str:
    """Return the limit that was found, and whether it is the configured one."""
    if told.idle_limit is None:
        return "none" if one.idle is None else "none **(wrong)**"
    right = one.idle is not None and one.idle[0] - LENIENCE <= told.idle_limit <= one.idle[1] + LENIENCE
    return f"{told.idle_limit:g} s" if right else f"{told.idle_limit:g} s **(wrong)**"


def _without_ports(text: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text)


if __name__ == "__main__":
    main()
