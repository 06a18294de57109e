from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.faces import FACES, Face
from conformance.fixtures import TRANSPORTS, Setting, settings, tls

__all__ = ["face", "setting", "settings", "tls"]


@pytest.fixture(params=FACES, ids=str)
def face(request: pytest.FixtureRequest) -> Face:
    """Every way to run a turn."""
    chosen: Face = request.param
    return chosen


@pytest.fixture(params=TRANSPORTS)
def setting(request: pytest.FixtureRequest, settings: Callable[[str], Setting]) -> Setting:
    """Every transport."""
    return settings(request.param)
