"""The real SDKs, each in every case, against what the rule says. They run in a virtual environment of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pytest

from real.parts import missing
from sdks import matrix
from sdks.expected import SDKS

FOUR_ROWS = ("nothing goes wrong", "reset after the prelude", "clean end after a token", "429 with Retry-After")
"""A row of each kind: nothing is lost; a replay; an error; a retry."""

TWO_SDKS = ("openai", "anthropic")
"""Those that most of the others are built on, or like."""


def cells_of(rows: Sequence[str], sdks: Iterable[str] = tuple(SDKS)) -> pytest.MarkDecorator:
    cells = [
        pytest.param(sdk, face, case, id=f"{face}-{case}")
        for sdk in sdks
        for face, cells in SDKS[sdk].items()
        for case in cells
        if case in rows
    ]
    return pytest.mark.parametrize(("sdk", "face", "case"), cells)


def run(rows: Sequence[str], sdks: Iterable[str] = tuple(SDKS)) -> matrix.Matrix:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    return matrix.run(rows, sdks)


@pytest.fixture(scope="module")
def four_rows() -> matrix.Matrix:
    return run(FOUR_ROWS, TWO_SDKS)


@pytest.fixture(scope="module")
def every_row() -> matrix.Matrix:
    return run(matrix.EVERY_ROW)


def is_as_expected(found: matrix.Matrix, sdk: str, face: str, case: str) -> None:
    cell = found[sdk]["faces"][face][case]["with"]
    expected = SDKS[sdk][face][case]
    assert (cell["outcome"], cell["requests"]) == expected, cell["error"]
    assert cell["expected"], f"{cell['error']} is no error of the SDK's or of httpx's"


@cells_of(FOUR_ROWS, TWO_SDKS)
def test_four_rows_with_unbroken(four_rows: matrix.Matrix, sdk: str, face: str, case: str) -> None:
    is_as_expected(four_rows, sdk, face, case)


@pytest.mark.slow
@cells_of(matrix.EVERY_ROW)
def test_every_row_with_unbroken(every_row: matrix.Matrix, sdk: str, face: str, case: str) -> None:
    is_as_expected(every_row, sdk, face, case)


@pytest.mark.slow
def test_every_cell_is_expected(every_row: matrix.Matrix) -> None:
    assert {sdk: {face: set(cells) for face, cells in part["faces"].items()} for sdk, part in every_row.items()} == {
        sdk: {face: set(cells) for face, cells in faces.items()} for sdk, faces in SDKS.items()
    }


@pytest.mark.slow
def test_without_unbroken_nobody_survives_a_cut_before_the_first_token(every_row: matrix.Matrix) -> None:
    """The reason for all of this; if it ever fails, an SDK has learnt it, and the table should say so."""
    faces = [cells for part in every_row.values() for cells in part["faces"].values()]
    streamed = [cells for cells in faces if "reset after the prelude" in cells]
    assert streamed
    assert not [cells for cells in streamed if cells["reset after the prelude"]["without"]["outcome"] == "complete"]


# What docs/sdks.md says of a cut

ROW = re.compile(r"^\| ([a-z-]+)(?:, (\w+))? \| (?:`(\w+)\.(\w+)`)?[^|]* \| ([^|]+) \| (\d) \|$", re.MULTILINE)
PAGE = (matrix.ROOT / "docs" / "sdks.md").read_text("utf-8")
TOLD = [match.groups() for match in ROW.finditer(PAGE)]


def test_every_sdk_has_its_row_on_the_page() -> None:
    assert {sdk for sdk, *_ in TOLD} == SDKS.keys()


@pytest.mark.slow
def test_a_cut_raises_what_the_page_says(every_row: matrix.Matrix) -> None:
    package = name = None
    for sdk, provider, own_package, own_name, says, causes in TOLD:
        package, name = (own_package, own_name) if own_name else (package, name)  # "the same"
        others = [other for own, other, *_ in TOLD if own == sdk and other and not provider]
        for face, cases in every_row[sdk]["faces"].items():
            if any(other in face for other in others):
                continue
            cell = cases["clean end after a token"]["with"] if "clean end after a token" in cases else {}
            if cell.get("outcome") == "error" and (provider or "") in face:
                assert (cell["error"], cell["causes"]) == (f"{package}.{name}", int(causes)), face
                assert ("Connection error." if '"' in says else "the stream was cut") in cell["message"], face
