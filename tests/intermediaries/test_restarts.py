"""A proxy that is killed and started again in the middle of a turn, at every phase; ``make restarts`` has more."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from intermediaries.kinds import BY_NAME, VERSIONS, Version
from intermediaries.restarts import NAMES, PLACES, WAYS, Ended, Place, Way, expected, interrupted, section, wrong
from intermediaries.running import Trust, make_trust
from real.parts import missing

OURS = WAYS[1:]
PART: tuple[tuple[str, Version], ...] = (
    ("v2ray-connect", "HTTP/1.1"),
    ("v2ray-connect", "HTTP/2"),
    ("haproxy-tcp", "HTTP/2"),
)


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_trust(tmp_path_factory.mktemp("trust"), "127.0.0.1", "localhost")


@pytest.mark.slow
@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "version"), PART)
def test_the_turn_survives_before_output_and_by_choice_after_it(
    name: str, version: Version, place: Place, way: Way, trust: Trust, tmp_path: Path
) -> None:
    intermediary = BY_NAME[name]
    if not intermediary.installed:
        missing(f"{intermediary.program} is not installed: {intermediary.get}")
    ended = interrupted(intermediary, version, place, way, trust, tmp_path / name)
    assert ended.outcome == expected(place, way), ended.error
    assert ended.requests == (1 if ended.outcome == "error" else 2)
    assert ended.outcome == "whole" or "after output: the answer is not whole" in ended.error


def test_what_is_not_as_demanded_is_told() -> None:
    found = {
        (name, version, place, way): Ended(expected(place, way), 2)
        for name, version in PART
        for place in PLACES
        for way in WAYS
    }
    assert wrong(found) == []
    name, version = PART[0]
    found[name, version, "in the prelude", "default"] = Ended("silent", 1)
    assert wrong(found) == [f"{name}, {version}, in the prelude, default: silent ×1 "]


def test_the_section_has_a_row_for_each_proxy_version_and_place() -> None:
    cells = itertools.product(NAMES, VERSIONS, PLACES, WAYS)
    found = {cell: Ended(expected(*cell[2:]), 2) for cell in cells}
    told = section(found, NAMES)
    assert told.count("\n| v2ray-connect |") == 6
    assert "Nothing." in told
