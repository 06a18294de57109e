"""An answer of a real model that is cut anywhere and continued by prefix: llama.cpp's server with SmolLM2."""

from __future__ import annotations

from typing import Any

import pytest

import unbroken
from unbroken.lab import CuttingProxy
from unbroken.lab.local_model import LocalModel

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("local model")]

PROMPT = "Describe the tide in four sentences, and then list three rivers."
CONTINUE = unbroken.Policy(after_output="continue")
PLACES = 10


def ask(url: str, **options: Any) -> tuple[str, unbroken.Report]:
    with unbroken.Client("llama.cpp", base_url=url, proxy="", policy=CONTINUE) as client:
        with client.stream(PROMPT, max_tokens=48, temperature=0, **options) as turn:
            turn.read()
        return turn.text, turn.report


def test_a_continued_answer_is_the_uncut_one_character_for_character(local_model: LocalModel) -> None:
    with CuttingProxy(target=("127.0.0.1", local_model.port)) as proxy:
        whole, report = ask(f"http://127.0.0.1:{proxy.port}/v1")
        size = proxy.tunnels[0].bytes_down
    assert len(whole) > 100
    assert report.seams == ()
    seams, differing = set(), {}
    for place in range(1, PLACES + 1):
        after = size * place // (PLACES + 1)
        with CuttingProxy(target=("127.0.0.1", local_model.port), cut_after=after, how="fin", cuts=1) as proxy:
            text, report = ask(f"http://127.0.0.1:{proxy.port}/v1")
            assert proxy.cuts_made == 1
        assert report.replays == 1
        seams.add(report.seams[0].character)
        if text != whole:
            differing[report.seams[0].character] = text
    assert len(seams) == PLACES
    assert differing == {}
