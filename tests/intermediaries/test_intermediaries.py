"""A part of the matrix in the gate: v2ray, haproxy and nginx, and every sentence compared with what is configured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from intermediaries.cell import PINGS, Asked, Found, Unit, ask_all, wrong_sentences
from intermediaries.kinds import BY_NAME, Version
from intermediaries.running import Place, make_trust
from real.parts import missing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real intermediaries")]

PART: tuple[tuple[str, Version, Place], ...] = (
    ("v2ray-connect", "HTTP/2", "before headers"),
    ("v2ray-socks5", "HTTP/1.1", "after headers"),
    ("haproxy-tcp", "HTTP/2", "after headers"),
    ("haproxy-h2", "HTTP/2", "after headers"),
    ("nginx-h2", "HTTP/2", "before headers"),
)
UNITS = [Unit(BY_NAME[name], version, place) for name, version, place in PART]
PLAIN = Asked("plain")
EVERYBODY = (PLAIN, *(Asked("run", ping) for ping in PINGS), Asked("relay", "default"))
AT_ONCE = 3

FEWER = ("--replays", "2")
"""Three cuts make a pattern, of which there is advice."""

Matrix = dict[Unit, Found]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    folder = tmp_path_factory.mktemp("intermediaries")
    trust = make_trust(folder, "127.0.0.1", "localhost")

    def measure(unit: Unit) -> Found:
        return ask_all(unit, trust, folder / str(UNITS.index(unit)), EVERYBODY, FEWER)

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
    outcomes = {asked: seen.outcome for asked, seen in matrix[unit].items()}
    assert outcomes.pop(PLAIN) in ("error", "silent"), "the intermediary does not cut"
    assert set(outcomes.values()) <= {"whole", "error"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.title)
def test_ping_keeps_a_path_that_counts_bytes(unit: Unit, matrix: Matrix) -> None:
    pinged = matrix[unit][Asked("run", "on")]
    if unit.version == "HTTP/2" and unit.intermediary.ping_helps:
        assert (pinged.outcome, pinged.requests) == ("whole", 1)
    else:
        assert (pinged.outcome, pinged.requests) == ("error", 3)
