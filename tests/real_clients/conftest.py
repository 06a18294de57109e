from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "agents: needs the real clients that tests/real_clients/install.sh installs")
