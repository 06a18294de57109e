"""Parts that live outside Python: skipped with a hint where they are missing, but a failure in the gate."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where ``UNBROKEN_REQUIRE_REAL`` is set.

    Args:
        what: which part is missing, and how to get it.
    """
    if os.environ.get("UNBROKEN_REQUIRE_REAL"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
