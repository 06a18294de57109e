from __future__ import annotations

from collections.abc import Iterator

import pytest

from differential.bench import Bench


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as running:
        yield running
