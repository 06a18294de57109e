"""The workflows of GitHub, which cannot run here: what they say, and that the commands they run are there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packaging_parts import MISSING_ON_WINDOWS
from yaml_files import parse

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PORTABLE = ROOT / "tests" / "portable.txt"

Workflow = dict[str, Any]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def workflow(path: Path) -> Workflow:
    return parse(path)


@pytest.fixture
def ci() -> Workflow:
    return parse(ROOT / ".github" / "workflows" / "ci.yml")


@pytest.fixture
def release() -> Workflow:
    return parse(ROOT / ".github" / "workflows" / "release.yml")


def steps(workflow: Workflow) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def runs(workflow: Workflow) -> list[str]:
    return [step["run"] for step in steps(workflow) if "run" in step]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_there_are_two() -> None:
    assert [path.name for path in FILES] == ["ci.yml", "release.yml"]


def test_it_says_first_that_it_has_never_run(path: Path) -> None:
    head = path.read_text("utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(r"ha(s|ve) never run", head)
    assert "never run" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_its_indentation_is_even_and_without_tabs(path: Path) -> None:
    """What can be said of it without a parser."""
    for line in path.read_text("utf-8").splitlines():
        assert "\t" not in line
        assert (len(line) - len(line.lstrip(" "))) % 2 == 0, line
        assert line == line.rstrip()


def test_it_may_only_read_but_for_publishing(workflow: Workflow) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert granted in ({}, {"publish": {"id-token": "write"}})


def test_actions_are_pinned_to_a_major_version(workflow: Workflow) -> None:
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_one_action_has_one_version() -> None:
    used = {step["uses"] for path in FILES for step in steps(parse(path)) if "uses" in step}
    assert len({name.partition("@")[0] for name in used}) == len(used)


def test_no_text_from_outside_is_run(workflow: Workflow) -> None:
    """An expression in a script would be put into it unquoted, whoever wrote the text."""
    assert not [script for script in runs(workflow) if "${{" in script]


def test_every_job_ends(workflow: Workflow) -> None:
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_jobs_wait_for_jobs_that_are_there(workflow: Workflow) -> None:
    for job in workflow["jobs"].values():
        assert job.get("needs", next(iter(workflow["jobs"]))) in workflow["jobs"]


def test_bash_accepts_every_script(workflow: Workflow) -> None:
    for script in runs(workflow):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


KNOWN = {"apt-get", "make", "python", "test", "unbroken"}
MODULES = {"build", "pip", "pip_audit", "pytest", "unbroken"}


def commands(workflow: Workflow) -> Iterator[list[str]]:
    for script in runs(workflow):
        for line in re.split(r"\n| && ", script.strip()):
            if not re.match(r"\w+=", line):  # what a variable is set to is tested with the release
                yield line.split()


def test_every_command_is_known(workflow: Workflow) -> None:
    for name, *args in commands(workflow):
        assert name in KNOWN, name
        if name == "make":
            assert args[0] in targets(), args
        if name == "python":
            assert args[0] == "-m"
            assert args[1] in MODULES, args


def test_the_gate_runs_on_every_python_that_is_supported(ci: Workflow) -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    job = ci["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == supported
    assert [step["run"].split()[:2] for step in job["steps"] if "run" in step] == [["make", "test"]]


def test_it_runs_what_the_gate_runs(ci: Workflow) -> None:
    gate = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    made = [words[1] for words in commands(ci) if words[0] == "make"]
    assert set(made) == set(gate) == {"test", "test-slow"}


def test_the_portable_part_runs_on_the_other_systems(ci: Workflow) -> None:
    job = ci["jobs"]["portable"]
    assert job["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    assert f"python -m pytest @{PORTABLE.relative_to(ROOT)}" in runs({"jobs": {"portable": job}})


def test_pins_are_looked_up_every_week(ci: Workflow) -> None:
    assert "python -m pip_audit -r constraints.txt --no-deps --disable-pip" in runs(ci)
    assert ci["true"]["schedule"]


def test_a_tag_publishes_what_was_installed(release: Workflow) -> None:
    jobs = release["jobs"]
    assert release["true"] == {"push": {"tags": ["v*"]}}
    assert jobs["install"]["needs"] == "build"
    assert jobs["publish"]["needs"] == "install"
    assert jobs["publish"]["environment"] == "pypi"
    assert set(jobs["install"]["strategy"]["matrix"]["os"]) == {"ubuntu-latest", "macos-latest", "windows-latest"}
    used = [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]]
    assert used == ["actions/download-artifact", "pypa/gh-action-pypi-publish"], "the job with the token runs no script"


@pytest.mark.parametrize(("tag", "code"), [("v0.1.0", 0), ("v0.1", 1), ("0.1.0", 1), ("v0.1.0rc1", 1)])
def test_a_tag_of_another_version_is_refused(tag: str, code: int, release: Workflow) -> None:
    (script,) = [step["run"] for step in steps(release) if step.get("name") == "The tag is the version"]
    env = {"PATH": str(Path(sys.executable).parent) + ":/usr/bin:/bin", "GITHUB_REF_NAME": tag}
    assert subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=env, check=False).returncode == code


# The portable part


def test_what_the_portable_part_names_is_there() -> None:
    given = PORTABLE.read_text("utf-8").splitlines()
    assert given[:2] == ["-m", "not slow and not timing"]
    for name in given[2:]:
        assert (ROOT / name.removeprefix("--ignore=")).exists(), name


@pytest.mark.slow  # it imports nearly every test
def test_the_portable_part_is_collected_without_what_windows_lacks() -> None:
    code = f"from packaging_parts import forget\nforget({MISSING_ON_WINDOWS!r})\nimport pytest\n"
    code += f"raise SystemExit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '@{PORTABLE}']))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]


def test_it_uses_nothing_that_only_linux_has() -> None:
    given = PORTABLE.read_text("utf-8").splitlines()[2:]
    ignored = {ROOT / name.removeprefix("--ignore=") for name in given if name.startswith("--ignore=")}
    paths = [ROOT / name for name in given if not name.startswith("--ignore=")]
    modules = {found for path in paths for found in (path.rglob("test_*.py") if path.is_dir() else [path])} - ignored
    for module in modules:
        assert not re.search(
            r"/proc/|\bfcntl\b|\btermios\b|\bimport pty\b|SIGKILL|cli\.terminals", module.read_text("utf-8")
        ), module
