"""Put one small fault after the other into a copy of the source, and see whether the tests find it.

    python tools/seed_faults.py            every fault of tools/faults.toml
    python tools/seed_faults.py WORD ...   those with one of these words in their names
    python tools/seed_faults.py --check    only whether each fault can still be put in

For each fault the tests of its module are run first, then those of its package, then the whole fast lane, until one
fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
TESTS = ROOT / "tests"
EXTRA = {
    "core": ["drivers", "client"],
    "drivers": ["conformance"],
    "transports": ["transports"],
    "wire": ["conformance"],
}
"""Folders of tests that are run early for a fault in a package, besides its own."""


def faulty(text: str, fault: dict[str, Any]) -> str:
    """The source with the fault in it.

    Raises:
        SystemExit: the place is not there, or not unique.
    """
    if text.count(fault["find"]) != 1:
        raise SystemExit(
            f"{fault['name']}: {fault['find']!r} stands {text.count(fault['find'])} times in {fault['file']}"
        )
    return text.replace(fault["find"], fault["replace"])


def put_in(fault: dict[str, Any], folder: Path) -> None:
    """Copy the source with the fault into a folder."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "unbroken" / fault["file"]
    path.write_text(faulty(path.read_text(), fault))
    if fault.get("twin"):  # generated code has the fault too
        sys.path.insert(0, str(ROOT / "tools"))
        import unasync

        path.with_name("synchronous.py").write_text(unasync.twin(path))


def first_failures(source: Path, where: list[str]) -> list[str]:
    """The first tests that fail over a source."""
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=3", "-m", "not slow and not timing", *where]
    if not where or any(Path(name).is_dir() for name in where):
        command += ["-n", "4", "--dist", "loadgroup"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled of the source lies in its own folder
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return [line.split(" ")[1] for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]


def rounds(file: str) -> Iterator[list[str]]:
    """What is run for a fault in a file, one after the other: its module's tests, its package's, and all."""
    package, _, rest = file.partition("/")
    dialect = f"{package}/dialects/test_{Path(file).parent.name}.py"
    modules = [f"{package}/{Path(rest).parent}/test_{Path(file).stem}.py", dialect]
    if own := [str(TESTS / name) for name in modules if (TESTS / name).exists()]:
        yield own
    yield [str(TESTS / name) for name in [package, *EXTRA.get(package, [])] if (TESTS / name).exists()]
    yield []


def main() -> int:
    """Report for each fault which tests find it; fail when one is not found."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    faults = tomllib.loads((ROOT / "tools" / "faults.toml").read_text())["fault"]
    chosen = [fault for fault in faults if not words or any(word in fault["name"] for word in words)]
    if "--check" in sys.argv:
        for fault in chosen:
            faulty((SOURCE / "unbroken" / fault["file"]).read_text(), fault)
        return 0
    missed = 0
    for fault in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "src"
            put_in(fault, source)
            found = next(filter(None, (first_failures(source, where) for where in rounds(fault["file"]))), [])
        missed += not found
        print(f"{fault['name']}: {'; '.join(found) or 'NOT FOUND'} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
