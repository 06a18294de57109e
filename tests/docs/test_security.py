"""The threat model: each line has a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_each_invariant_has_a_test_that_is_there() -> None:
    section = PAGE[PAGE.index("## What holds") : PAGE.index("## Budgets")]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| invariant")]
    assert len(rows) > 20
    for row in rows:
        tests = row.strip("| ").split(" | ")[-1].split(", ")
        for test in tests:
            assert re.fullmatch(r"`tests/[\w/]+\.py`", test), row
            assert (ROOT / test.strip("`")).exists(), test


def test_each_budget_names_an_option_or_a_place_that_is_there() -> None:
    section = PAGE[PAGE.index("## Budgets") : PAGE.index("## What is not a goal")]
    relay = (ROOT / "src/unbroken/cli/relay.py").read_text()
    policy = (ROOT / "src/unbroken/core/policy.py").read_text()
    for name in re.findall(r"\| `([^`]+)` \|$", section, re.MULTILINE):
        if name.startswith("--"):
            assert f'"{name} ' in relay, name
        elif name.startswith("Policy."):
            assert f"    {name.removeprefix('Policy.')}: " in policy, name
        else:
            assert (ROOT / "src/unbroken" / name).exists(), name
