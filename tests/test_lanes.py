"""Every test is in exactly one lane, `make` runs them all, and a module's fixtures are made once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
MAKEFILE = (TESTS.parent / "Makefile").read_text()


def pytest_of(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over one module, under the rules of this suite."""
    (folder / "conftest.py").write_text("from lanes import pytest_collection_modifyitems\n")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS}\nmarkers =\n    slow:\n    timing:\n")
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", *options, str(folder)]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # which would take longer than the tests
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


RIGHT = """
def test_fast(): pass
@pytest.mark.timing
def test_timing(promptly): pass
@pytest.mark.slow
def test_slow(v2ray): pass
@pytest.mark.slow
def test_slow_and_late(v2ray, promptly): pass
"""

WRONG = """
@pytest.mark.timing
@pytest.mark.slow
def test_two_lanes(promptly): pass
@pytest.mark.timing
def test_timing_of_v2ray(v2ray, promptly): pass
def test_fast_with_v2ray(v2ray): pass
def test_fast_and_late(promptly): pass
@pytest.mark.timing
def test_timing_alone(): pass
"""

FIXTURES = """
import pytest
@pytest.fixture
def promptly(): pass
@pytest.fixture
def v2ray(): pass
"""


def test_a_test_is_in_exactly_one_lane(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, FIXTURES + RIGHT)
    assert "4 passed" in ran.stdout
    ran = pytest_of(tmp_path, FIXTURES + RIGHT + WRONG)
    complaints = re.findall(r"::test_(\w+) (.*)", ran.stdout + ran.stderr)
    assert complaints == [
        ("two_lanes", "is marked both slow and timing"),
        ("timing_of_v2ray", "uses v2ray and is not marked slow"),
        ("fast_with_v2ray", "uses v2ray and is not marked slow"),
        ("fast_and_late", "compares a time with a control and is marked neither timing nor slow"),
        ("timing_alone", "is marked timing and has no control beside it (the fixture promptly)"),
    ]
    assert ran.returncode != 0


STANDS = """
import pytest
@pytest.mark.parametrize("side", ["asyncio", "uvloop"])
def test_on_a_loop(side): pass
@pytest.mark.parametrize("face", ["driver-asyncio", "client-asyncio"])
def test_by_a_face(face): pass
"""


def test_what_another_value_stands_for_is_slow(tmp_path: Path) -> None:
    assert "2 passed, 2 deselected" in pytest_of(tmp_path, STANDS, "-m", "not slow").stdout


def test_every_lane_is_run_by_one_command() -> None:
    lanes = re.findall(r"^\t.*bin/pytest -m \"([^\"]+)\"", MAKEFILE, re.MULTILINE)
    for marks in ({"slow": False, "timing": False}, {"slow": False, "timing": True}, {"slow": True, "timing": False}):
        chosen = [lane for lane in lanes if eval(lane, {}, marks)]
        assert len(chosen) == 1, (marks, lanes)


MADE = """
import pytest

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with open({file!r}, "a") as file:
        file.write("made\\n")

@pytest.mark.parametrize("number", range(40))
def test_it(made, number): pass
"""


def test_a_modules_fixture_is_made_once_for_all_workers(tmp_path: Path) -> None:
    """pytest 9.2 took away what pytest-xdist 3.8 reads; constraints.txt has the one before."""
    file = tmp_path / "made"
    ran = pytest_of(tmp_path, MADE.format(file=str(file)), "-n", "2", "--dist", "loadgroup")
    assert "40 passed" in ran.stdout, ran.stdout
    assert file.read_text() == "made\n"
