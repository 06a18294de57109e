from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cli.programs import environment
from relay.redis_server import RedisServer
from relay.serving import Call, Caller, RelayProgram, RunRelay, Serve, Served, ServeRaw, settings_to
from unbroken.lab import Upstream
from unbroken.relay.settings import UpstreamSettings
from wire.servers import RawServer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here ends with the test, last first: clients, then relays, then upstreams."""
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def lab(stack: ExitStack) -> Upstream:
    """A scripted upstream that has nothing to go wrong."""
    return stack.enter_context(Upstream())


@pytest.fixture
def serve_raw(stack: ExitStack) -> ServeRaw:
    """Starts servers that do to an accepted socket what a script says, where the lab is too polite."""
    return lambda script: stack.enter_context(RawServer(script))


@pytest.fixture
def serve(stack: ExitStack) -> Serve:
    """Starts relays: ``serve(to, **settings)``, see :func:`relay.serving.settings_to`."""

    def start(to: str | Mapping[str, str | UpstreamSettings], *, host: str = "127.0.0.1", **settings: Any) -> Served:
        return stack.enter_context(Served(settings_to(to, **settings), host))

    return start


@pytest.fixture
def served(serve: Serve, lab: Upstream) -> Served:
    """A relay before the scripted upstream, which has the name ``lab`` and is the default one."""
    return serve(lab.url)


@pytest.fixture
def call(stack: ExitStack) -> Call:
    """Connects clients: ``call(served)``, or to a port."""

    def connect(to: Served | int, **options: Any) -> Caller:
        return stack.enter_context(Caller(to if isinstance(to, int) else to.port, **options))

    return connect


@pytest.fixture
def run_relay(stack: ExitStack, tmp_path: Path) -> RunRelay:
    """Runs ``unbroken relay`` as a program of its own: ``run_relay(*args, **environment)``; tells its port too."""

    def run(*args: str, **variables: str) -> tuple[RelayProgram, int]:
        program = stack.enter_context(
            RelayProgram("relay", "--port", "0", *args, env=environment(tmp_path, **variables))
        )
        said = program.err.wait_for("status page: ")
        return program, int(re.search(r"listening on http://.*:(\d+)\n", said)[1])

    return run


@pytest.fixture(scope="module")
def redis_of_module() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_of_module: RedisServer) -> RedisServer:
    """A Redis that knows nothing yet."""
    assert redis_of_module.ask("FLUSHALL") == b"+OK\r\n"
    return redis_of_module
