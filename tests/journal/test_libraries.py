"""The libraries write no journal: a program that imports them has a user of its own to ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.programs import environment
from unbroken.lab import Fault, Upstream

CLIENT = """
import sys, unbroken
with unbroken.Client(base_url=sys.argv[1], model="m") as client:
    client.complete([{"role": "user", "content": "hi"}])
"""

TRANSPORT = """
import sys, httpx2, unbroken
with httpx2.Client(transport=unbroken.Transport()) as client:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = client.post(sys.argv[1] + "/chat/completions", json=body)
assert b"[DONE]" in answer.content
"""

LOADED = """
assert not {"sqlite3", "unbroken.journal"} & {*sys.modules}
"""


@pytest.mark.parametrize("program", [CLIENT, TRANSPORT], ids=["client", "transport"])
def test_a_lost_attempt_of_a_library_is_not_noted(program: str, tmp_path: Path) -> None:
    with Upstream(faults=[Fault("rst", "after_role")]) as upstream:
        env = environment(tmp_path, XDG_STATE_HOME=str(tmp_path / "state"), LOCALAPPDATA=str(tmp_path / "state"))
        command = [sys.executable, "-c", program + LOADED, upstream.url]
        subprocess.run(command, env=env, timeout=120, check=True)
        assert len(upstream.requests) == 2
    assert [*tmp_path.rglob("journal*")] == []
