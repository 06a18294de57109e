"""The plugin for pytest, in a pytest of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pytest_runs import PLUGIN, run_pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

UNUSED = """
import sys

def test_nothing_is_loaded():
    found = {name for name in sys.modules if name.split(".")[0] == "unbroken"}
    assert found == {"unbroken", "unbroken.pytest_plugin"}
    assert not {"msgspec", "httptools", "h2", "click"} & set(sys.modules)
"""

USED = """
import os
import socket
import urllib.request

import pytest

import unbroken.lab

seen = []

def test_one(unbroken_lab):
    labs = [unbroken_lab(), unbroken_lab("rst@before_headers", environ=True)]
    seen.extend(labs)
    assert os.environ["OPENAI_BASE_URL"] == labs[1].base_url
    assert os.environ["OPENAI_API_KEY"]
    assert labs[0].base_url != labs[1].base_url

def test_it_has_ended_with_its_test():
    assert "OPENAI_BASE_URL" not in os.environ
    for lab in seen:
        host, _, port = lab.origin.removeprefix("http://").partition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))

def test_tls(unbroken_lab):
    lab = unbroken_lab("rst@handshake", tls=True, environ=True)
    def get(url):
        with urllib.request.urlopen(f"{url}/models") as response:
            return response.status
    assert lab.base_url.startswith("https://")
    with pytest.raises(OSError):
        get(lab.base_url)
    assert get(lab.base_url) == 200

def test_its_mistakes(unbroken_lab):
    with pytest.raises(ValueError, match="the scenarios are"):
        unbroken_lab("nope")
    with pytest.raises(ValueError, match="the kinds are"):
        unbroken_lab("nope@after_role")

async def client():
    return "word01of24"

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asynchronous(unbroken_lab, anyio_backend):
    lab = unbroken_lab()
    assert lab.verdict(await client()).outcome == "failed silently"
"""


def test_the_entry_point_names_it() -> None:
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"unbroken_lab": PLUGIN}


def test_unused_it_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_unused.py").write_text(UNUSED)
    ran = run_pytest(tmp_path)
    assert "1 passed" in ran.stdout, ran.stdout


def test_used_it_ends_with_each_test(tmp_path: Path) -> None:
    (tmp_path / "test_used.py").write_text(USED)
    ran = run_pytest(tmp_path)
    assert "5 passed" in ran.stdout, ran.stdout


def test_its_fixture_is_listed_with_its_help(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, "--fixtures")
    assert "unbroken_lab -- " in ran.stdout
    assert "break connections on purpose" in ran.stdout
