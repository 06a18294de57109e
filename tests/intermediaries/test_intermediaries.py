"""A part of the matrix in the gate: v2ray, haproxy and nginx, and every sentence compared with what is configured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from intermediaries.cell import EVERYBODY, Found, Unit, ask_all, wrong_sentences
from intermediaries.kinds import BY_NAME, Version
from intermediaries.running import Place, make_trust
from real.parts import missing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real intermediaries")]

PART: tuple[tuple[str, Version, Place], ...] = (
    ("v2ray-connect", "HTTP/2", "before headers"),
    ("v2ray-socks5", "HTTP/1.1", "after headers"),
    ("haproxy-tcp", "HTTP/2", "after headers"),
    ("haproxy-h2", "HTTP/2", "after three tokens"),
    ("nginx-http", "HTTP/1.1", "before headers"),
    ("nginx-h2", "HTTP/2", "after headers"),
)
UNITS = [Unit(BY_NAME[name], version, place) for name, version, place in PART]
AT_ONCE = 3

Matrix = dict[Unit, Found]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    folder = tmp_path_factory.mktemp("intermediaries")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # some programs give up root's rights
    trust = make_trust(folder, "127.0.0.1", "localhost")

    def measure(unit: Unit) -> Found:
        return ask_all(unit, trust, folder / unit.title.replace(" ", "-").replace("/", ""))

    for unit in UNITS:
        if not unit.intermediary.installed:
            missing(f"{unit.intermediary.program} is not installed: {unit.intermediary.get}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(UNITS, pool.map(measure, UNITS), strict=True))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.title)
def test_no_sentence_is_wrong(unit: Unit, matrix: Matrix) -> None:
    assert wrong_sentences(unit, matrix[unit]) == {}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.title)
def test_what_is_cut_is_never_passed_off_as_whole(unit: Unit, matrix: Matrix) -> None:
    found = matrix[unit]
    assert found[EVERYBODY[0]].outcome in ("error", "silent"), "the intermediary does not cut"
    assert {asked: seen.outcome for asked, seen in found.items() if seen.outcome in ("silent", "doubled")}.keys() <= {
        EVERYBODY[0]
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.title)
def test_ping_keeps_a_path_that_counts_bytes(unit: Unit, matrix: Matrix) -> None:
    kept = unit.version == "HTTP/2" and unit.intermediary.ping_helps
    pinged = {
        asked.who: (seen.outcome == "whole", seen.requests == 1)
        for asked, seen in matrix[unit].items()
        if asked.ping == "on"
    }
    if kept:
        assert pinged == {"run": (True, True), "relay": (True, True)}
    else:
        assert not any(whole for whole, _ in pinged.values())
