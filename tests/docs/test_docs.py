"""Every command and every code block of the docs is run, as a user would run it, against the lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import tomli_w

from docs.pages import PAGES, ROOT
from ports import free_port
from unbroken.cli.config import read_config
from unbroken.core.providers import PROVIDERS
from unbroken.lab import ScriptedAnswer, Upstream

FENCE = re.compile(r"^```([\w ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RELAY_PORT = "8765"
"""The relay's usual one; another one is put in its place."""

OWN_SERVER = "https://llm.example.com/v1"
"""A server of the reader's own; the lab is put in its place."""

AGENTS = ("aider", "claude", "codex")
"""Programs of others that the docs run; a stand-in asks in their place; tests/real_clients has the real ones."""

EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
"""What a command may install besides; tests/packaging has the installations themselves."""

STAND_IN = """#!/bin/sh
case "$*" in
*openai_base_url=*) url=${*#*openai_base_url=} ;;
*) url=$OPENAI_BASE_URL ;;
esac
exec unbroken run --quiet --base-url "$url" --no-proxy Hello
"""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    @property
    def wants_relay(self) -> bool:
        """Whether it is about a relay that runs already."""
        return RELAY_PORT in self.text and "unbroken relay" not in self.text


def blocks(*languages: str) -> list[pytest.param]:
    found = []
    for page in PAGES:
        if page.name == "agents.md":  # made from the commands that tests/real_clients runs
            continue
        source = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(source):
            if match[1] in languages:
                block = Block(page, source.count("\n", 0, match.start()) + 1, match[1], match[2])
                found.append(pytest.param(block, id=f"{page.name}:{block.line}"))
    return found


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(answer=ScriptedAnswer(text="Forty-two.", reasoning=["hm"])) as server:
        yield server


@pytest.fixture
def env(upstream: Upstream, tmp_path: Path) -> dict[str, str]:
    """A user who has a key, whose provider is the lab, and who has changed a file in a checkout."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {
        "PATH": os.pathsep.join([str(stand_ins(tmp_path)), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DEEPSEEK_API_KEY": "sk-test",
        "DEEPSEEK_BASE_URL": upstream.url,
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": upstream.url,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def relay_env(env: dict[str, str], upstream: Upstream, tmp_path: Path) -> dict[str, str]:
    """The same user, whose relay listens on a port that is free, and whose providers are all the lab."""
    config = tmp_path / "relay.toml"
    config.write_text(tomli_w.dumps({"upstreams": {name: {"base_url": upstream.url} for name in PROVIDERS}}))
    return env | {"UNBROKEN_CONFIG": str(config), "UNBROKEN_RELAY_PORT": str(free_port())}


def stand_ins(folder: Path) -> Path:
    """A folder with programs in the place of others'."""
    programs = folder / "programs"
    programs.mkdir()
    for name in AGENTS:
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    (folder / "my_agent.py").write_text("import os; assert os.environ['OPENAI_BASE_URL'].endswith('/openai/v1')")
    return programs


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs(block: Block, relay_env: dict[str, str], env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(block.text.replace(RELAY_PORT, relay_env["UNBROKEN_RELAY_PORT"]))
    run("python block.py", relay_env if block.wants_relay else env, tmp_path, serving=block.wants_relay)


@pytest.mark.parametrize("block", blocks("console"))
def test_the_commands_of_a_block_run(
    block: Block, relay_env: dict[str, str], env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    if "$ curl " in block.text and not shutil.which("curl"):
        pytest.skip("needs curl")
    given = relay_env if RELAY_PORT in block.text or "unbroken relay" in block.text else env
    script = "\n".join(runnable(command) for command in commands(block.text))
    for port in sorted(set(re.findall(r"\b900\d\b", script))):
        script = script.replace(port, str(free_port()))
    script = script.replace(RELAY_PORT, relay_env["UNBROKEN_RELAY_PORT"]).replace(OWN_SERVER, upstream.url)
    run(script, given, tmp_path, serving=block.wants_relay)


def run(script: str, env: Mapping[str, str], folder: Path, *, serving: bool) -> None:
    """Run a script of bash, with a relay in the background if it needs one."""
    begin = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    begin += f"{in_background('unbroken relay')}\n" if serving else ""
    ran = subprocess.run(
        ["bash", "-c", begin + script],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stderr


def commands(text: str) -> list[str]:
    """The commands of a block, with the lines that go on with them."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)", text, re.MULTILINE)


def runnable(command: str) -> str:
    """The command itself, but for those that would run this very test again, install over what is tested, or never
    end."""
    if command.startswith("make "):
        return f"{command} -n -C {ROOT}"
    if installs := re.fullmatch(r"pip install (?:\.|'\.\[([\w,]+)\]')", command):
        assert set(filter(None, (installs[1] or "").split(","))) <= EXTRAS, command
        return "true"
    if re.match(r"([A-Z_]+=\S+ )*unbroken relay\b", command) and not command.endswith("&"):
        return in_background(command)
    return command


def in_background(command: str) -> str:
    """A command that goes on serving, and a wait until it does."""
    return (
        f"{command} 2> relay.log &\n"
        "for _ in $(seq 200); do grep -q '^listening on' relay.log && break; sleep 0.1; done\n"
        "grep -q '^listening on' relay.log || { cat relay.log >&2; false; }"
    )


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_configuration_block_is_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block.text)
    assert read_config(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_without_a_language(page: Path) -> None:
    assert "" not in {match[1] for match in FENCE.finditer(page.read_text(encoding="utf-8"))}
