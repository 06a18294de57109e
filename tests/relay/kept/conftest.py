from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay.conftest import stack
from relay.kept.clients import Relays
from relay.redis_server import RedisServer

__all__ = ["stack"]


@pytest.fixture(scope="module")
def redis_of_module() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_of_module: RedisServer) -> RedisServer:
    """A Redis that knows nothing yet."""
    assert redis_of_module.ask("FLUSHALL") == b"+OK\r\n"
    return redis_of_module


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
