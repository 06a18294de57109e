"""Run a client, and the relay before it: in processes of their own, in folders of their own, for a limited time."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

import unbroken
from real_clients.clients import RELAY, Client
from sdks import matrix

AGENTS = matrix.ROOT / ".agents"
NODE_SDKS = Path(os.environ.get("UNBROKEN_NODE_SDKS") or matrix.ROOT / ".node-sdks")
"""Where the gate has the SDKs of Node; the agents are not installed there."""

PINS = Path(__file__).with_name("package.json")
BINS = (matrix.python().parent, AGENTS / "node_modules" / ".bin", AGENTS / "aider" / "bin")
UNBROKEN = (sys.executable, "-m", "unbroken")
EXEC = ("env", f"PYTHONPATH={Path(unbroken.__file__).parents[1]}", *UNBROKEN, "exec")
"""``unbroken exec`` of the package under test, in an environment that has nothing of this one's."""

LIMIT = 120.0
"""Seconds that a client may take; they mostly take three."""
START_WITHIN = 30.0
STOP_WITHIN = 20.0

CLOSED_DOOR = "http://127.0.0.1:9"
"""A proxy that is not there: whatever a client wants besides its model stays on this machine."""

Aim = Callable[[str], str]
"""Puts another address in the place of the relay's usual one."""


@dataclass(frozen=True)
class Ran:
    """What came of running a client.

    Attributes:
        code: how it exited; None: it was ended because it took too long.
        stdout: what it said.
        stderr: what else it said.
        seconds: how long it took.
    """

    code: int | None
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Relay:
    """A running relay.

    Attributes:
        origin: its address.
        said: the file with what it writes to stderr.
    """

    origin: str
    said: Path

    def requests(self) -> list[dict[str, Any]]:
        """Its log: one entry a request, whole once the relay has been stopped."""
        lines = self.said.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if "method" in entry]


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where ``UNBROKEN_REQUIRE_AGENTS`` is set."""
    if os.environ.get("UNBROKEN_REQUIRE_AGENTS"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def demand(client: Client) -> None:
    """Skip or fail the test where a client is not installed, or in another version than the one that is pinned."""
    registry, _, package = client.package.rpartition(" ")
    if client.command[0] == "python":
        if not matrix.python().exists():
            missing("the SDKs are missing; `make .venv-sdks` installs them")
    elif client.command[0] == "node" and has_pinned(NODE_SDKS, package):
        pass
    elif registry == "npm":
        _demand_made("package.json", AGENTS / "node_modules", package)
    elif registry == "pypi":
        _demand_made("requirements-aider.txt", AGENTS / "aider", package)
    elif not shutil.which(client.command[0]):
        missing(f"{package} is missing")


def has_pinned(place: Path, package: str) -> bool:
    """Return whether a package of npm is installed in a folder in the version that is pinned for it."""
    manifest = place / "node_modules" / package / "package.json"
    pinned = json.loads(PINS.read_text(encoding="utf-8"))["dependencies"][package]
    return manifest.exists() and bool(json.loads(manifest.read_text(encoding="utf-8"))["version"] == pinned)


def _demand_made(pins: str, place: Path, package: str) -> None:
    """Skip or fail the test unless the installation of what a file pins was finished."""
    made = place / "made"
    if not made.exists() or made.read_bytes() != Path(__file__).with_name(pins).read_bytes():
        missing(
            f"{package} is missing, or another version of it is there: `sh tests/real_clients/install.sh` installs it"
        )


def straight_at(origin: str) -> Aim:
    """Aim at a server that stands in for every provider."""
    return lambda text: re.sub(re.escape(RELAY) + "/(openai|anthropic|google|deepseek)", origin, text)


def through(relay: Relay) -> Aim:
    """Aim at a relay."""
    return lambda text: text.replace(RELAY, relay.origin)


def run(client: Client, aim: Aim, *, before: tuple[str, ...] = (), limit: float = LIMIT) -> Ran:
    """Run a client for one prompt, in a home folder of its own.

    Args:
        client: which.
        aim: where to.
        before: what stands before its command.
        limit: seconds that it may take.
    """
    with tempfile.TemporaryDirectory(prefix="agent-", ignore_cleanup_errors=True) as home:
        files = {**client.files, **client.quiet_files}
        furnish(Path(home), {path: aim(text) for path, text in files.items()}, packages_for(client))
        return _end_to_end(
            [*before, *map(aim, client.command)],
            cwd=Path(home) / "work",
            env={
                **environment(Path(home)),
                **client.quiet,
                **{name: aim(text) for name, text in client.environ.items()},
            },
            limit=limit,
        )


def packages_for(client: Client) -> Path:
    """Return the folder with the packages of a program for Node: the agents', or else that of the gate."""
    package = client.package.rpartition(" ")[2]
    at_the_gate = client.command[0] == "node" and not has_pinned(AGENTS, package)
    return (NODE_SDKS if at_the_gate else AGENTS) / "node_modules"


def furnish(home: Path, files: Mapping[str, str], packages: Path) -> None:
    """Write the files of a home folder, with a folder to work in where the packages for Node are found."""
    work = home / "work"
    work.mkdir()
    (work / "node_modules").symlink_to(packages)
    for path, text in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text, encoding="utf-8")


def environment(home: Path) -> dict[str, str]:
    """An environment with nothing of this one's in it but the programs."""
    return {
        "PATH": search_path(),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), CLOSED_DOOR),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


def search_path() -> str:
    """Where programs are found: the installed clients before all else."""
    return os.pathsep.join([*map(str, BINS), *os.get_exec_path()])


def _end_to_end(command: list[str], *, cwd: Path, env: Mapping[str, str], limit: float) -> Ran:
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    code: int | None = None
    try:
        stdout, stderr = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _end_group(process, signal.SIGKILL)
        stdout, stderr = process.communicate()
    finally:
        _end_group(process, signal.SIGKILL)  # some leave helpers behind
    return Ran(code, stdout, stderr, time.monotonic() - started)


def _end_group(process: subprocess.Popen[Any], with_signal: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, with_signal)


@contextmanager
def relay(folder: Path, upstream: str, *options: str) -> Iterator[Relay]:
    """Run a relay on a free port, with one server in the place of every provider.

    Args:
        folder: for its log.
        upstream: the server's origin.
        options: further ones of ``unbroken relay``.
    """
    said = folder / "relay.log"
    places = {"openai": f"{upstream}/v1", "anthropic": upstream, "google": upstream, "deepseek": f"{upstream}/v1"}
    named = [part for name, url in places.items() for part in ("--upstream", f"{name}={url}")]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [*UNBROKEN, "relay", "--port", "0", *named, "--log-format", "json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**env, "UNBROKEN_CONFIG": os.devnull},
            start_new_session=True,
        )
        try:
            yield Relay(_address(process, said), said)
        finally:
            _stop(process)


def _address(process: subprocess.Popen[bytes], said: Path) -> str:
    """Where a relay that was just started listens."""
    deadline = time.monotonic() + START_WITHIN
    while not (found := re.search(r"listening on (http://\S+)", said.read_text(encoding="utf-8"))):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the relay does not start: {said.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.02)
    return found[1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let it finish its log, or end it."""
    _end_group(process, signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        _end_group(process, signal.SIGKILL)
        process.wait()
