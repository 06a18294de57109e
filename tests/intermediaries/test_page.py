"""The page has three sections, and each command leaves those of the others as they are."""

from __future__ import annotations

from pathlib import Path

from intermediaries import diagnoses, page
from intermediaries.asking import Seen
from intermediaries.cell import EVERYBODY, Unit
from intermediaries.doctor import Diagnosis
from intermediaries.kinds import INTERMEDIARIES, VERSIONS
from intermediaries.matrix import Matrix, section
from intermediaries.outages import LINK_DOWN, SECONDS, Cell, Outcome, cells
from intermediaries.outages import section as outages
from intermediaries.running import PLACES


def test_a_command_writes_its_own_section(tmp_path: Path) -> None:
    where = tmp_path / "page.md"
    page.write("make outages", "## Second\n\nold", where)
    page.write("make intermediaries", "## First\n\ntext", where)
    page.write("make outages", "## Second\n\nnew", where)
    text = where.read_text()
    assert text.startswith(page.TITLE)
    assert text.index("## First\n\ntext") < text.index("## Second\n\nnew")
    assert "old" not in text


def test_an_intermediary_that_is_missing_says_how_to_get_it() -> None:
    matrix: Matrix = {
        Unit(one, version, place): f"not installed: `{one.get}`"
        for one in INTERMEDIARIES
        for version in VERSIONS
        for place in PLACES
    }
    text = section(INTERMEDIARIES, matrix)
    for one in INTERMEDIARIES:
        assert f"### {one.name}\n" in text
        assert one.get in text


def test_what_was_said_wrongly_is_listed() -> None:
    one = INTERMEDIARIES[0]
    said = Seen("error", said=["↻ path dead, no answer to PING"])
    found = dict.fromkeys(EVERYBODY, said)
    text = section([one], {Unit(one, "HTTP/2", "before headers"): found})
    assert "| “path dead” | every path here is alive | ↻ path dead, no answer to PING |" in text


def test_the_outages_are_crossed_with_all_else() -> None:
    found = cells(SECONDS)
    assert len(found) == len(set(found)) == len(SECONDS) * 2 * 3 * 2 * 2 + len(LINK_DOWN) * 2 * 3 * 2


def test_fewer_answers_and_more_requests_are_listed() -> None:
    cell = Cell("dropped", 5.0, "direct", "HTTP/2", "before headers", "during")
    seen = {
        "plain": Seen("whole", requests=1),
        "run": Seen("error", "path dead", requests=1),
        "transport": Seen("whole", requests=2),
    }
    told = outages({cell: Outcome(seen, dict.fromkeys(seen, 1.0), back=2.0)})
    assert "| `run` | no whole answer, but the plain SDK has one (path dead) | 1 |" in told
    assert "| transport | 2 requests instead of 1, although the old connection came back | 1 |" in told
    assert "error ×1, 1 s ✗ | **whole** ×2, 1 s ✗ |" in told
    late = outages({cell: Outcome(seen, dict.fromkeys(seen, 1.0), back=31.0)})
    assert "2 requests" not in late


def test_the_doctors_sentence_has_a_row_for_each_intermediary() -> None:
    finding = {"code": "path_cuts_idle", "text": "the local proxy at http://127.0.0.1:1234 cuts", "next": "raise it"}
    right, wrong = (Diagnosis(4, [finding], limit, {}, "") for limit in (2.1, 30.0))
    found = {one.name: f"not installed: `{one.get}`" for one in INTERMEDIARIES} | {"squid": right, "tinyproxy": wrong}
    rows = [line for line in diagnoses.section(found).splitlines() if line.startswith("| [")]
    assert [row.split("]")[0].removeprefix("| [") for row in rows] == [one.name for one in INTERMEDIARIES]
    told = {name: next(row for row in rows if f"[{name}]" in row) for name in ("squid", "tinyproxy", "dante")}
    assert "| 2.1 s | path_cuts_idle: the local proxy at http://127.0.0.1 cuts | raise it |" in told["squid"]
    assert "| 30 s **(wrong)** |" in told["tinyproxy"]
    assert "not installed: `apt-get install dante-server`" in told["dante"]
