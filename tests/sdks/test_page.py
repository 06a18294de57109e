"""Every block of ``docs/sdks.md``, run as a user would run it, but against the lab: the first request is cut."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from real.parts import missing
from sdks import matrix
from unbroken.lab import Fault, ScriptedAnswer, Upstream

PAGE = matrix.ROOT / "docs" / "sdks.md"
BLOCK = re.compile(r"^```python sdk\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match[1] for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
TEXT = "Hello from the lab."
KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "GROQ")


class Ran(NamedTuple):
    """What came of a block."""

    said: str
    complaint: str
    requests: int


@pytest.fixture(scope="module")
def ran() -> list[Ran]:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    with ThreadPoolExecutor(matrix.AT_ONCE) as pool:
        return list(pool.map(run, BLOCKS))


def run(block: str) -> Ran:
    answer = ScriptedAnswer(text=f'{{"greeting": "{TEXT}"}}') if "instructor" in block else ScriptedAnswer()
    with Upstream(answer=answer, faults=[Fault("rst", "after_role")]) as upstream:
        done = subprocess.run(
            [matrix.python(), "-c", block.replace("https://api.mistral.ai", upstream.origin)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment(upstream),
            check=False,
        )
        return Ran(done.stdout, done.stderr, len(upstream.requests))


def environment(upstream: Upstream) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **kept,
        **{f"{name}_API_KEY": "sk-lab" for name in KEYS},
        "PYTHONPATH": str(matrix.ROOT / "src"),
        "OPENAI_BASE_URL": upstream.url,
        "OPENAI_API_BASE": upstream.url,
        "ANTHROPIC_BASE_URL": upstream.origin,
        "ANTHROPIC_API_URL": upstream.origin,
        "GOOGLE_GEMINI_BASE_URL": upstream.origin,
        "GROQ_BASE_URL": upstream.origin,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_page_survives_a_cut(ran: list[Ran], number: int) -> None:
    said, complaint, requests = ran[number]
    assert TEXT in said, complaint[-2000:]
    assert said.count("Hello") == 1
    assert requests == 2


def test_every_sdk_has_a_block() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(matrix.SDKS) <= set(headings)
