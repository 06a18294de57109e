"""The doctor, run as its user would, behind an intermediary whose timer is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intermediaries.asking import user
from intermediaries.kinds import Intermediary
from intermediaries.running import Trust, running
from unbroken.lab import Upstream
from unbroken.lab.echo import EchoServer

LIMIT = 240.0
"""Seconds after which a doctor that still runs is ended."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor said.

    Attributes:
        code: its exit code.
        findings: its findings, without those of the provider's own.
        idle_limit: seconds, or ``None``.
        path: the path.
        said: all that it said for a person.
    """

    code: int
    findings: list[Mapping[str, str]]
    idle_limit: float | None
    path: Mapping[str, Any]
    said: str

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.findings]

    @property
    def sentences(self) -> str:
        return "\n".join(f"{finding['text']}: {finding['next']}" for finding in self.findings)


def diagnosed(one: Intermediary, trust: Trust, folder: Path, timer: int, longest: float) -> Diagnosis:
    """Run the doctor behind an intermediary.

    Args:
        one: a proxy, or a server in the place of the origin.
        trust: the certificates.
        folder: for what is written; it is made.
        timer: the intermediary's timer in seconds.
        longest: seconds of silence that the doctor tries.

    Raises:
        RuntimeError: the intermediary does not start.
    """
    reads_http = not one.ping_helps
    with ExitStack() as stack:
        origin = EchoServer(ssl_context=trust.server()) if reads_http else Upstream(ssl_context=trust.server())
        stack.enter_context(origin)
        port = stack.enter_context(running(one, origin.port, trust, folder / one.name, timer))
        where = ["--base-url", f"https://127.0.0.1:{origin.port if one.scheme else port}/v1"]
        where += ["--proxy", f"{one.scheme}://127.0.0.1:{port}"] if one.scheme else ["--no-proxy"]
        where += ["--echo", f"https://127.0.0.1:{port}"] if reads_http else []
        return doctor(folder / f"{one.name}-home", *where, "--ca-file", str(trust.ca), "--max", f"{longest:g}")


def doctor(home: Path, *args: str) -> Diagnosis:
    """Run the doctor with these arguments."""
    command = [sys.executable, "-m", "unbroken", "doctor", "--json", *args]
    ran = subprocess.run(command, env=user(home), cwd=home, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ran.stdout, ran.stderr
    told = json.loads(ran.stdout)
    return Diagnosis(ran.returncode, told["findings"], told["idle_limit"], told["path"], ran.stderr)
