from __future__ import annotations

from collections.abc import Iterator

import pytest

from differential.bench import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """One for each worker: the SDKs take seconds to import. The fast tests that use it are in one group."""
    with Bench() as running:
        yield running
