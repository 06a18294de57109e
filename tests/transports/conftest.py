from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from transports.asking import WAYS, Way
from unbroken.lab import Fault, Upstream

Serve = Callable[..., Upstream]


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts upstreams that are closed with the test."""
    started: list[Upstream] = []

    def start(*faults: Fault | None, **arguments: Any) -> Upstream:
        started.append(Upstream(faults=faults, **arguments).start())
        return started[-1]

    yield start
    for upstream in started:
        upstream.close()
