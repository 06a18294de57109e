"""Where the journal is: the platform's folder for state, apart from the configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "journal.sqlite3"


def journal_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the path of the journal, ``None`` if this user has no home.

    Sources: XDG Base Directory Specification 0.8 (a relative ``XDG_STATE_HOME`` is ignored); Apple's File System
    Programming Guide, "The Library Directory"; Microsoft's known folder ``FOLDERID_LocalAppData``.

    Args:
        environ: the environment; ``None`` for the process's own.
    """
    environ = os.environ if environ is None else environ
    if sys.platform == "win32":
        local = environ.get("LOCALAPPDATA", "")
        return Path(local) / "unbroken" / NAME if local else _below_home("AppData", "Local")
    if sys.platform == "darwin":
        return _below_home("Library", "Application Support")
    state = environ.get("XDG_STATE_HOME", "")
    return Path(state) / "unbroken" / NAME if state.startswith("/") else _below_home(".local", "state")


def _below_home(*folders: str) -> Path | None:
    try:
        return Path.home().joinpath(*folders, "unbroken", NAME)
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        return None
