"""The matrix: every SDK in the rows that are asked for, in processes of the second virtual environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdks.cases import CASES
from sdks.expected import SDKS

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(__file__).with_name("run_matrix.py")
AT_ONCE = 3
"""Processes at a time. They mostly wait."""
LIMIT = 240

EVERY_ROW = tuple(case.name for case in CASES)

Matrix = dict[str, dict[str, Any]]
"""By SDK: its version, and by face and case what came of it with and without Unbroken."""


def python() -> Path:
    """The second virtual environment's interpreter, there or not; ``UNBROKEN_SDKS_VENV`` names another one."""
    return Path(os.environ.get("UNBROKEN_SDKS_VENV") or ROOT / ".venv-sdks") / "bin" / "python"


def run(rows: Sequence[str] = EVERY_ROW, sdks: Iterable[str] = tuple(SDKS)) -> Matrix:
    """Some SDKs' parts of the matrix.

    Args:
        rows: names of cases.
        sdks: names of SDKs.

    Raises:
        RuntimeError: a process failed; with what it said.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = pool.map(lambda sdk: _run_sdk(sdk, rows), sdks)
        return {sdk: found for part in parts for sdk, found in part.items()}


def _run_sdk(sdk: str, rows: Sequence[str]) -> Matrix:
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [python(), RUN, sdk, *rows]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environ, check=False)
    if done.returncode:
        raise RuntimeError(f"{sdk}: {done.stderr[-2000:]}")
    matrix: Matrix = json.loads(done.stdout)
    return matrix
