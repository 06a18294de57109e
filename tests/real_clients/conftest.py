from __future__ import annotations

import pytest

from real.fixtures import ca_file, local_model, v2ray
from real_clients import running
from real_clients.clients import Client

__all__ = ["ca_file", "local_model", "v2ray"]


@pytest.fixture
def agent(client: Client) -> Client:
    """The real client of the parameter ``client``; it is installed."""
    running.demand(client)
    return client
