"""What ships: the wheel in clean environments, with each extra, under each Python that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from unbroken.lab import Fault, Upstream

ROOT = Path(__file__).parent.parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
HEAVY = {"httpx", "httpx2", "uvicorn", "prometheus-client", "uvloop"}
"""What a user of the library alone does not install."""

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]


def pythons() -> list[str]:
    """A path for each supported version that this machine has; the one that runs the tests is always among them."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {this: sys.executable}
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for version in VERSIONS:
        for folder in folders:
            candidate = folder / f"python{version}"
            if version not in found and os.access(candidate, os.X_OK) and _works(candidate):
                found[version] = str(candidate)
    return [found[version] for version in VERSIONS if version in found]


def _works(python: Path) -> bool:
    """Whether it starts: pyenv's shims exist for versions that are not."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "-w", str(folder), str(tree))
    [built] = folder.glob("*.whl")
    return built


def pip(python: str, *args: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *args]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


class Environment:
    """A virtual environment with the wheel and some extras."""

    def __init__(self, folder: Path, python: str, wheel: Path, extras: str) -> None:
        subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
        self._bin = folder / "bin"
        self._home = folder
        self.install(f"unbroken{extras} @ file://{wheel}")

    def install(self, requirement: str) -> None:
        pip(str(self._bin / "python"), "install", "-c", str(ROOT / "constraints.txt"), requirement)

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self._home), "LANG": "C.UTF-8", **variables}
        return subprocess.run(
            [str(part) for part in command], env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-W", "error", "-c", code, **variables)

    @property
    def packages(self) -> set[str]:
        listed = self.run("python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").stdout
        return {line.partition("==")[0].lower().replace("_", "-") for line in listed.splitlines()}


@pytest.fixture(scope="module", params=pythons(), ids=lambda path: Path(path).name)
def make(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Environment]:
    """Makes an environment with extras, once: ``make("[relay]")``."""
    made: dict[str, Environment] = {}

    def environment(extras: str) -> Environment:
        if extras not in made:
            made[extras] = Environment(tmp_path_factory.mktemp("venv") / "venv", request.param, wheel, extras)
        return made[extras]

    return environment


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(faults=[Fault("rst", "after_role")]) as upstream:
        yield upstream


def succeeds(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


CLIENT = """
import unbroken
with unbroken.Client(base_url="URL", proxy="") as client, client.stream("Why is the sky blue?") as turn:
    for event in turn:
        match event:
            case unbroken.Text(text):
                print(text, end="", flush=True)
    assert turn.report.lost == 1
"""

TRANSPORT = """
import LIBRARY
from unbroken.transports.LIBRARY import Transport
with LIBRARY.Client(transport=Transport(proxy="")) as client:
    body = {"model": "lab", "messages": [], "stream": True}
    response = client.post("URL/chat/completions", json=body)
    assert response.text.endswith("data: [DONE]\\n\\n")
    assert response.extensions["unbroken"].replays == 1
"""


class TestTheLibraryAlone:
    def test_is_small(self, make: Callable[[str], Environment]) -> None:
        assert not make("").packages & HEAVY

    def test_imports_everything_that_it_names(self, make: Callable[[str], Environment]) -> None:
        succeeds(make("").python("from unbroken import *; Client, StreamCut, Policy, wrap"))

    def test_asks_and_survives_a_cut(self, make: Callable[[str], Environment], upstream: Upstream) -> None:
        assert succeeds(make("").python(CLIENT.replace("URL", upstream.url))) == "Hello from the lab."

    def test_has_the_command_line(self, make: Callable[[str], Environment], upstream: Upstream) -> None:
        assert "unbroken demo" in succeeds(make("").run("unbroken", "--help"))
        ran = make("").run("unbroken", "run", "--base-url", upstream.url, "--no-proxy", "Hello")
        assert succeeds(ran) == "Hello from the lab.\n"

    def test_has_the_scenarios_of_the_lab_and_judges(self, make: Callable[[str], Environment]) -> None:
        client = ("unbroken", "run", "--provider", "openai", "Hello")
        ran = make("").run("unbroken", "lab", "verdict", "--scenario", "close-in-prelude", "--", *client)
        assert "1 survived" in succeeds(ran)

    @pytest.mark.parametrize(
        ("code", "extra"),
        [
            ("import unbroken; unbroken.Transport()", "httpx2"),
            ("import unbroken.transports.httpx2", "httpx2"),
            ("import unbroken.transports.httpx", "httpx"),
            ("import unbroken.relay", "relay"),
        ],
    )
    def test_says_which_extra_is_missing(self, make: Callable[[str], Environment], code: str, extra: str) -> None:
        ran = make("").python(code)
        assert f"pip install 'unbroken[{extra}]'" in ran.stderr

    @pytest.mark.parametrize("command", [["relay"], ["exec", "true"]])
    def test_says_so_on_the_command_line_without_a_traceback(
        self, make: Callable[[str], Environment], command: Sequence[str]
    ) -> None:
        ran = make("").run("unbroken", *command)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "pip install 'unbroken[relay]'" in ran.stderr
        assert "Traceback" not in ran.stderr


TESTED = """
def test_it(unbroken_lab):
    import unbroken

    lab = unbroken_lab("clean_end@after_role")
    with unbroken.Client(base_url=lab.base_url, proxy="") as client:
        assert lab.verdict(client.complete("Hello").text).outcome == "survived"
    assert len(lab.calls) == 2
"""


def test_pytest_finds_the_fixture(make: Callable[[str], Environment], tmp_path: Path) -> None:
    environment = make("")
    environment.install("pytest")
    (tmp_path / "test_it.py").write_text(TESTED)
    ran = environment.run("python", "-m", "pytest", "-W", "error", tmp_path)
    assert "1 passed" in succeeds(ran)
    ran = environment.run("python", "-m", "pytest", "-p", "no:unbroken_lab", tmp_path)
    assert "fixture 'unbroken_lab' not found" in ran.stdout


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
def test_a_transport_alone(make: Callable[[str], Environment], library: str, upstream: Upstream) -> None:
    environment = make(f"[{library}]")
    assert environment.packages & HEAVY == {library}
    succeeds(environment.python(TRANSPORT.replace("LIBRARY", library).replace("URL", upstream.url)))


def test_the_relay_alone(make: Callable[[str], Environment], upstream: Upstream) -> None:
    environment = make("[relay]")
    assert not environment.packages & {"httpx", "httpx2"}
    asks = 'unbroken run --base-url "$OPENAI_BASE_URL" "Hello"'
    ran = environment.run("unbroken", "exec", "sh", "-c", asks, OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="sk-x")
    assert succeeds(ran) == "Hello from the lab.\n"
    assert "1 survived a lost attempt" in ran.stderr


def test_all_of_it(make: Callable[[str], Environment], upstream: Upstream) -> None:
    environment = make("[all]")
    assert environment.packages >= HEAVY
    succeeds(environment.python("from unbroken import *; Transport, AsyncTransport"))
