"""In CI every run draws the same examples; elsewhere each run looks further."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("unbroken", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("unbroken")
