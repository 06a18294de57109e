"""Every command and every code block of the docs is run, as a user would run it, against the lab."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from unbroken.cli.config import read_config
from unbroken.lab import Answer, Upstream

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([\w ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str


def blocks(*languages: str) -> list[pytest.param]:
    found = []
    for page in PAGES:
        source = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(source):
            if match[1] in languages:
                block = Block(page, source.count("\n", 0, match.start()) + 1, match[1], match[2])
                found.append(pytest.param(block, id=f"{page.name}:{block.line}"))
    return found


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(answer=Answer(text="Forty-two.", reasoning=["hm"])) as server:
        yield server


@pytest.fixture
def env(upstream: Upstream, tmp_path: Path) -> dict[str, str]:
    """A user who has a key, whose provider is the lab, and who has changed a file in a checkout."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DEEPSEEK_API_KEY": "sk-test",
        "DEEPSEEK_BASE_URL": upstream.url,
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": upstream.url,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "PYTHONWARNINGS": "error",
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs(block: Block, env: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", block.text], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("block", blocks("console"))
def test_the_commands_of_a_block_run(block: Block, env: dict[str, str], tmp_path: Path) -> None:
    script = "\n".join(runnable(line.removeprefix("$ ")) for line in block.text.splitlines() if line.startswith("$ "))
    for port in sorted(set(re.findall(r"\b900\d\b", script))):
        script = script.replace(port, str(free_port()))
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
    ran = subprocess.run(
        ["bash", "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stderr


def runnable(command: str) -> str:
    """The command itself, but for those that would run this very test again, or install over what is tested."""
    if command.startswith("make "):
        return f"{command} -n -C {ROOT}"
    if command == "pip install .":
        return f"test -f {ROOT}/pyproject.toml"
    return command


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_configuration_block_is_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block.text)
    assert read_config(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_without_a_language(page: Path) -> None:
    assert "" not in {match[1] for match in FENCE.finditer(page.read_text(encoding="utf-8"))}
