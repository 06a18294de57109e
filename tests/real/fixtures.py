"""Real parts around a turn: v2ray, which cuts what is silent for a second, and a local model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from real.parts import missing
from real.v2ray import V2Ray, running
from unbroken.lab.local_model import LocalModel, LocalModelMissingError

CONN_IDLE = 1
"""Seconds; v2ray cuts a silent connection after one to two times as many."""

THINK = 2 * CONN_IDLE + 1.5
"""Seconds for which a model thinks, so that v2ray cuts it."""


@pytest.fixture(scope="module")
def v2ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2Ray]:
    with running(tmp_path_factory.mktemp("v2ray"), conn_idle=CONN_IDLE) as started:
        yield started


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority that the tests' servers are certified by."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def local_model() -> Iterator[LocalModel]:
    """Two at a time would be slow: whoever uses it is in the group ``local model``."""
    try:
        started = LocalModel().__enter__()
    except LocalModelMissingError as exc:
        missing(str(exc))
    try:
        yield started
    finally:
        started.__exit__(None, None, None)
