"""What is written in YAML, for tests that look at it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

WITH_YAML = Path(__file__).parents[1] / ".venv-sdks" / "bin" / "python"
"""The interpreter beside which there is PyYAML: make test makes it."""


def parse(path: Path) -> dict[str, Any]:
    """What a file says; the test is skipped where nothing here reads YAML."""
    if not WITH_YAML.exists():
        pytest.skip("needs .venv-sdks (make test makes it), in which there is PyYAML")
    # on: is a boolean in YAML 1.1, and JSON makes a text of it
    code = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    ran = subprocess.run([WITH_YAML, "-c", code], input=path.read_bytes(), capture_output=True, check=True)
    parsed: dict[str, Any] = json.loads(ran.stdout)
    return parsed
