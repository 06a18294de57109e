from __future__ import annotations

from collections.abc import Iterator

import pytest

from wire.sides import SIDES, Side, open_side


@pytest.fixture(scope="package", params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The blocking wire, and the async one under asyncio, uvloop and trio."""
    with open_side(request.param) as opened:
        yield opened
