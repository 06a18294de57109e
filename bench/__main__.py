"""Measure what Unbroken costs beside what people would use instead; a whole run writes docs/bench."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench import keeping
from bench.measure import CLIENTS, LITELLM, ROOT, Results, progress
from bench.relays import program
from bench.report import SIDES, as_json, page, read, updated, write

FOLDER = ROOT / "docs" / "bench"
PACKAGES = ("httptools", "h2", "uvicorn", "uvloop", "msgspec", "httpx2")
CLIENT_PACKAGES = ("httpx2", "aiohttp", "openai", "anthropic", "litellm", "pydantic-ai-slim", "llm")
ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def output_of(*command: str | Path) -> str:
    """Return what a command says, on either stream; nothing if it cannot be run."""
    try:
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return ""
    return (ran.stdout + ran.stderr).strip()


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures depend on: the machine, and the versions of everyone."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    clients = output_of(CLIENTS, "-c", ASK, *CLIENT_PACKAGES) if CLIENTS.exists() else "{}"
    proxy = output_of(LITELLM.parent / "python", "-c", ASK, "litellm") if LITELLM.exists() else "{}"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "rounds": options.rounds,
        "machine": f"{os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Unbroken's parts": {name: importlib.metadata.version(name) for name in PACKAGES},
        "clients": json.loads(clients),
        "relays": {
            "nginx": output_of(program("nginx") or "nginx", "-v").rpartition("/")[2],
            "haproxy": (output_of(program("haproxy") or "haproxy", "-v").split() + [""] * 3)[2],
            **{f"{name} proxy": version for name, version in json.loads(proxy).items()},
        },
        "store": output_of(keeping.server_program(), "--version").partition(" sha")[0] or "none",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in a few minutes: two rounds, fewer points")
    parser.add_argument("--only", action="append", choices=SIDES, metavar="SIDE", help=f"of {', '.join(SIDES)}")
    parser.add_argument("--rounds", type=int, help="how often each contestant is run (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the run there, and leave docs/bench as it is")
    parser.add_argument(
        "--update", action="store_true", help=f"put the sides of --only into {FOLDER.name}, in the place of older ones"
    )
    parser.add_argument(
        "--page", action="store_true", help=f"write page and plots again from {FOLDER.name}/results.json"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    if options.page:
        write(*read(FOLDER / "results.json"), FOLDER)
        return
    results = Results()
    about = machine(options)
    for name, measure in SIDES.items():
        if options.only and name not in options.only:
            continue
        began = os.getloadavg()[0]
        measure(results, options.rounds, options.quick)
        results.load[name] = [began, os.getloadavg()[0]]
    progress("")
    if options.json:
        options.json.write_text(as_json(results, about))
    elif options.update:
        write(*updated(*read(FOLDER / "results.json"), results, about), FOLDER)
    elif not options.quick and not options.only:
        write(results, about, FOLDER)
    print(page(results, about))


if __name__ == "__main__":
    main()
