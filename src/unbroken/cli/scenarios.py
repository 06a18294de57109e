"""Scenarios of the lab, as a command line names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.lab.scenario import Scenario


def read_scenario(name: str) -> Scenario:
    """Return the scenario of the catalogue with this name, or that of a ``.toml`` file.

    Raises:
        UsageError: there is none, or the file is none; the message says what is allowed.
    """
    from unbroken.lab.scenario import find_scenario, load_scenario

    try:
        return load_scenario(name) if name.endswith(".toml") else find_scenario(name)
    except OSError as exc:
        raise UsageError(f"cannot read {name}: {exc.strerror}") from None
    except ValueError as exc:
        raise UsageError(str(exc)) from None
