from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_of_module() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_of_module: RedisServer) -> RedisServer:
    """A Redis that knows nothing yet."""
    assert redis_of_module.ask("FLUSHALL") == b"+OK\r\n"
    return redis_of_module
