from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client.asking import ASKINGS, Asking
from unbroken.lab import Fault, Upstream


@pytest.fixture(params=ASKINGS)
def asking(request: pytest.FixtureRequest) -> Asking:
    """Either client, and either kind of event loop."""
    return ASKINGS[request.param]


@pytest.fixture
def serve() -> Iterator[Callable[..., Upstream]]:
    upstreams: list[Upstream] = []

    def serve_it(*faults: Fault | None, **arguments: Any) -> Upstream:
        upstreams.append(Upstream(faults=faults, **arguments).start())
        return upstreams[-1]

    yield serve_it
    for upstream in upstreams:
        upstream.close()
