"""The page of verdicts on real clients, and how one is judged for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from real_clients import verdict_table
from real_clients.judged import JUDGED
from real_clients.running import UNBROKEN
from sdks import matrix
from unbroken.lab import catalogue
from unbroken.lab.verdict import OUTCOMES

PAGE = matrix.ROOT / "docs" / "verdict-table.md"


def report(**verdicts: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    scenarios = [
        {"scenario": name, "verdict": named.get(name, "survived"), "reasons": [f"because of {name}"]}
        for name in verdict_table.SCENARIOS
        if named.get(name) != "left out"
    ]
    return {"version": "1.2.3", "date": "2026-11-27", "scenarios": scenarios}


FOUND = {
    "one": {
        "alone": report(empty_body="failed silently", web_page="failed silently", unavailable="failed loudly"),
        "with Unbroken": report(web_page="hammered", quota_exhausted="left out"),
    },
    "other": {"alone": {"problem": "it is not installed"}, "with Unbroken": {"problem": "it is not installed"}},
}


def test_the_page_counts_and_compares() -> None:
    page = verdict_table.page(FOUND)
    number = len(verdict_table.SCENARIOS)
    assert f"| one | 1.2.3, 2026-11-27 | alone | {number - 3} | 1 |  |  |  |  | **2** |" in page
    assert f"|  |  | with Unbroken | {number - 2} |  |  |  | **1** |  |  |" in page
    assert "| empty-body | **silent** → whole |" in page
    assert "| unavailable | error → whole |" in page
    assert "| quota-exhausted | whole → – |" in page
    assert "| nothing | whole |" in page
    assert "* one, *web-page*: hammered (because of web-page)" in page
    assert "* other: it is not installed" in page


def test_every_outcome_has_a_word_and_every_scenario_is_one() -> None:
    assert set(verdict_table.WORDS) == set(OUTCOMES)
    assert set(verdict_table.SCENARIOS) <= set(catalogue())
    assert set(verdict_table.ORDER) == set(JUDGED)


def test_the_page_that_is_shipped_is_that_of_the_verdicts_that_are_kept() -> None:
    page = PAGE.read_text("utf-8")
    assert page == verdict_table.page(verdict_table.kept())
    rows = re.findall(r"^\| ([\w-]+) \| ", page, re.MULTILINE)
    assert set(verdict_table.SCENARIOS) <= set(rows)
    named = re.findall(r"^(?:\| |\* )([\w ]+?)(?: \||:)", page, re.MULTILINE)
    assert set(verdict_table.ORDER) <= set(named)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "verdict"), [([], "failed silently"), ([*UNBROKEN, "exec", "--"], "failed loudly")])
def test_a_client_is_judged_alone_and_with_unbroken(before: list[str], verdict: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    program = [*before, sys.executable, "-m", "real_clients.judged", "curl"]
    command = [*UNBROKEN, "lab", "verdict", "--json", "--scenario", "clean-end-in-answer", "--told", '"error"', "--"]
    ran = subprocess.run(
        [*command, *program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    [found] = json.loads(ran.stdout)["scenarios"]
    assert found["verdict"] == verdict, found
