"""Responses that go on at the server, by the openai SDK over Unbroken's transport."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from real.parts import missing
from sdks import matrix
from unbroken.lab import Background, Fault, ScriptedAnswer, Upstream

SCRIPT = Path(__file__).with_name("ask_in_background.py")
TEXT = "The tide goes out, and comes in."
WAYS = ("added", "helper", "added_async")
"""Further ways to ask: each starts the SDK anew, which takes seconds."""


def ask(upstream: Upstream, way: str) -> dict[str, Any]:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ["PYTHONPATH"] = str(matrix.ROOT / "src")
    command = [str(matrix.python()), str(SCRIPT), upstream.url, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)
    assert not done.returncode, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["asked", *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS)])
def test_the_sdk_reads_one_uncut_stream(way: str) -> None:
    faults = [Fault("rst", "after_events", offset=6, seconds=0.03), Fault("clean_end", "after_bytes", offset=300)]
    with Upstream(faults=faults, answer=ScriptedAnswer(text=TEXT), background=Background()) as upstream:
        found = ask(upstream, way)
        assert found["text"] == TEXT
        assert found["numbers"] == list(range(len(found["numbers"])))
        assert (len(upstream.requests_for("generation")), len(upstream.requests_for("resume"))) == (1, 2)
        for request in upstream.requests_for("resume"):
            assert request.header("authorization") == "Bearer sk-1"


@pytest.mark.slow
def test_a_stream_that_is_closed_is_cancelled() -> None:
    slow = ScriptedAnswer(text=TEXT, gap=0.2)
    with Upstream(answer=slow, background=Background()) as upstream:
        assert len(ask(upstream, "left")["numbers"]) == 6
        assert len(upstream.requests_for("cancel")) == 1
