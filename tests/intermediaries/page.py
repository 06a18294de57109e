"""``docs/intermediaries.md``: its sections, each written by a command of its own that leaves the others alone."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import openai

import unbroken
from intermediaries.kinds import ROOT

PAGE = ROOT / "docs" / "intermediaries.md"

TITLE = """\
# Real intermediaries, and outages

What stands between a program and a model, run for real: proxies and servers with an idle timer of seconds, and networks
that carry nothing for a while. Each turn is asked by the plain `openai` SDK and by Unbroken, side by side. This page is
generated; each of its sections by a command of its own.
"""

COMMANDS = ("make intermediaries", "make diagnoses", "make restarts", "make outages")
_SECTION = re.compile(r"^<!-- (make \w+) -->\n(.*?)(?=^<!-- make|\Z)", re.MULTILINE | re.DOTALL)


def write(command: str, text: str, page: Path = PAGE) -> None:
    """Write the section of one command, and keep those of the others.

    Args:
        command: one of :data:`COMMANDS`.
        text: the section, which begins with its heading.
        page: the file.
    """
    kept = dict(_SECTION.findall(page.read_text("utf-8"))) if page.exists() else {}
    sections = kept | {command: f"\n{text.strip()}\n\n"}
    body = "".join(f"<!-- {name} -->\n{sections[name]}" for name in COMMANDS if name in sections)
    page.write_text(f"{TITLE}\n{body.rstrip()}\n", encoding="utf-8")


def head(command: str, versions: Mapping[str, str], *, sdk: bool = True) -> str:
    """Return how a section was made: the command, the machine, the versions, with that of the plain SDK."""
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return (
        f"```console\n$ {command}\n```\n\n"
        f"Run on {when}, on {machine}, with Unbroken {unbroken.__version__}{_commit()}"
        + (f" and openai {openai.__version__}" if sdk else "")
        + (f"; {told}." if told else ".")
    )


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" (commit {found.stdout.strip()})"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    columns = list(titles)
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )
