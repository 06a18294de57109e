from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cli.programs import Cli, Ended, environment
from unbroken.cli import execute


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process, without stdin: what costs no interpreter can be asked often."""

    def call(*args: str, **variables: str) -> Ended:
        env = environment(tmp_path) | variables
        with monkeypatch.context() as changed:
            for name in os.environ.keys() - env.keys():
                changed.delenv(name)
            for name, value in env.items():
                changed.setenv(name, value)
            changed.setattr("sys.stdin", None)
            logger = logging.getLogger("unbroken")  # of which a program makes what it likes
            changed.setattr(logger, "propagate", logger.propagate)
            changed.setattr(logger, "handlers", [*logger.handlers])
            try:
                code = execute(args)
            except SystemExit as exc:
                code = int(exc.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has nothing set."""
    return environment(tmp_path)
