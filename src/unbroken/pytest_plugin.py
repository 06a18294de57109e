"""The plugin for pytest: the fixture ``unbroken_lab``, for tests of one's own client.

pytest loads it in every project that has the package installed, so it loads nothing of the package until a test asks
for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from unbroken.lab.scenario_server import Part, ScenarioServer


class StartLab(Protocol):
    """The type of the fixture ``unbroken_lab``."""

    def __call__(self, *parts: Part, environ: bool = False, before: int = 0, **fields: Any) -> ScenarioServer:
        """Start a server that breaks connections as a scenario says, until the end of the test.

        Args:
            parts: the name of a scenario of the lab, a ``.toml`` file with one, or an ``unbroken.lab.Scenario``; or
                the fault of each attempt: the words of ``unbroken lab upstream --fault``, a Fault, or None.
            environ: whether the variables with base URLs lead to the server for the rest of the test.
            before: how many generation calls are answered well before the first that counts.
            fields: further arguments of ``unbroken.lab.Scenario``, where faults are named.

        Raises:
            OSError: a file cannot be read.
            ValueError: there is no such scenario, or no such fault.
        """


@pytest.fixture
def unbroken_lab(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartLab]:
    """Start LLM servers that break connections on purpose, until the end of the test.

    unbroken_lab("rst@after_role") or unbroken_lab("reset-in-answer") starts one, with base_url, environ, answer, calls,
    run(client) and verdict(answer). https://github.com/unbroken-dev/unbroken/blob/main/docs/pytest.md
    """
    from contextlib import ExitStack

    from unbroken.cli.base_urls import VARIABLES
    from unbroken.core.providers import PROVIDERS
    from unbroken.lab.scenario_server import ScenarioServer, scenario_of

    paths = {name: path for name, (_, path) in VARIABLES.items() if path is not None}
    keys = {provider.key_env for provider in PROVIDERS.values() if provider.key_env}

    def start(*parts: Part, environ: bool = False, before: int = 0, **fields: Any) -> ScenarioServer:
        scenario = scenario_of(parts, **fields)
        server = ScenarioServer(scenario, lambda: tmp_path_factory.mktemp("lab"), before=before, paths=paths, keys=keys)
        stack.enter_context(server)
        for name, value in server.environ.items() if environ else ():
            monkeypatch.setenv(name, value)
        return server

    with ExitStack() as stack:
        yield start
