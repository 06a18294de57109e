"""The real SDKs, each in every case, against what the rule says. They run in a virtual environment of their own."""

from __future__ import annotations

import pytest

from real.parts import missing
from sdks import matrix
from sdks.expected import SDKS

pytestmark = [pytest.mark.sdks, pytest.mark.xdist_group("sdks")]

CELLS = [
    pytest.param(sdk, face, case, id=f"{face}-{case}")
    for sdk, faces in SDKS.items()
    for face, cells in faces.items()
    for case in cells
]


@pytest.fixture(scope="session")
def found() -> matrix.Matrix:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    return matrix.run()


@pytest.mark.parametrize(("sdk", "face", "case"), CELLS)
def test_with_unbroken(found: matrix.Matrix, sdk: str, face: str, case: str) -> None:
    cell = found[sdk]["faces"][face][case]["with"]
    expected = SDKS[sdk][face][case]
    assert (cell["outcome"], cell["requests"]) == expected, cell["error"]
    assert cell["expected"], f"{cell['error']} is no error of the SDK's or of httpx's"


def test_every_cell_is_expected(found: matrix.Matrix) -> None:
    assert {sdk: {face: set(cells) for face, cells in part["faces"].items()} for sdk, part in found.items()} == {
        sdk: {face: set(cells) for face, cells in faces.items()} for sdk, faces in SDKS.items()
    }


def test_without_unbroken_nobody_survives_a_cut_before_the_first_token(found: matrix.Matrix) -> None:
    """The reason for all of this; if it ever fails, an SDK has learnt it, and the table should say so."""
    streamed = [cells for part in found.values() for cells in part["faces"].values() if "400" in cells]
    streamed = [cells for cells in streamed if "reset after the prelude" in cells]
    assert streamed
    assert not [cells for cells in streamed if cells["reset after the prelude"]["without"]["outcome"] == "complete"]
