"""A Python without the parts that Windows does not have."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

MISSING_ON_WINDOWS = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop")


class _Missing(importlib.abc.MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}, as on Windows", name=name)
        return None


def forget(names: Sequence[str]) -> None:
    """Let imports of these modules fail, but those of the standard library and of pytest, which are made first."""
    import asyncio
    import getpass
    import multiprocessing
    import os
    import shutil
    import signal
    import subprocess
    import tempfile

    import pytest  # noqa: F401
    import trio  # noqa: F401

    assert asyncio, (getpass, multiprocessing, shutil, subprocess, tempfile)
    for name in names:
        sys.modules.pop(name, None)
    for module, gone in ((os, ("fork", "geteuid", "getuid", "openpty", "waitid")), (signal, ("SIGKILL", "SIGHUP"))):
        for name in gone:
            delattr(module, name)
    sys.meta_path.insert(0, _Missing(names))
