from __future__ import annotations

from contextlib import ExitStack

import pytest

from relay.conftest import stack
from relay.kept.clients import Relays
from relay.redis_server import RedisServer

__all__ = ["stack"]


@pytest.fixture(params=["memory", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where turns are kept."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


@pytest.fixture
def relays(stack: ExitStack, store_url: str) -> Relays:
    """Starts an upstream and relays before it, which keep turns."""
    return Relays(stack, store_url)


@pytest.fixture
def in_memory(stack: ExitStack) -> Relays:
    """The same, in memory alone: for what does not depend on the store."""
    return Relays(stack, "memory://")
