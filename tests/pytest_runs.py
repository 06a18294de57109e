"""Runs of pytest in another folder, with the plugin of the package, as its users have it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import unbroken

PLUGIN = "unbroken.pytest_plugin"


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder, without any plugin but this one; every warning is an error."""
    named = [] if is_installed() else ["-p", PLUGIN]
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "--rootdir", ".", *named, *args],
        cwd=folder,
        env=kept | {"PYTHONPATH": os.pathsep.join([str(Path(unbroken.__file__).parents[1]), str(folder)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def is_installed() -> bool:
    """Whether pytest finds the plugin by itself: a package that was installed before the plugin was made has none."""
    return any(one.value == PLUGIN for one in entry_points(group="pytest11"))
