"""The page about pytest: its client and its tests are run as they stand, and pytest says what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from docs.pages import ROOT
from pytest_runs import run_pytest

PAGE = (ROOT / "docs" / "pytest.md").read_text("utf-8")
CLIENT, TEST, MENDING, WAYS, MORE = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SAID = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0].splitlines()


def test_ten_lines_are_tested_in_ten_lines() -> None:
    for block in (CLIENT, TEST):
        assert sum(map(bool, block.splitlines())) <= 10


def test_what_pytest_says_of_them(tmp_path: Path) -> None:
    (tmp_path / "my_client.py").write_text(CLIENT)
    (tmp_path / "test_my_client.py").write_text(TEST)
    ran = run_pytest(tmp_path)
    assert [line for line in SAID if line not in ran.stdout] == []


def test_one_line_mends_it_and_the_other_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "my_client.py").write_text(CLIENT.replace("    return ", f"{MENDING}    return "))
    (tmp_path / "test_my_client.py").write_text(TEST)
    (tmp_path / "test_ways.py").write_text(WAYS)
    (tmp_path / "test_more.py").write_text(MORE)
    ran = run_pytest(tmp_path)
    assert "7 passed" in ran.stdout, ran.stdout
