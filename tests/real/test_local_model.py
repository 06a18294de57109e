"""Turns of a real model: llama.cpp's server with SmolLM2."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unbroken
from real.parts import missing
from unbroken.lab import CuttingProxy, FaultProxy, parse_fault
from unbroken.lab.local_model import LocalModel, LocalModelMissingError, find_weights

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("local model")]


def test_a_turn_is_whole_and_counted(local_model: LocalModel) -> None:
    with unbroken.Client(base_url=local_model.url, proxy="") as client:
        with client.stream("Say hello.", max_tokens=16, temperature=0) as turn:
            events = list(turn)
        assert turn.text == "".join(event.text for event in events if isinstance(event, unbroken.Text))
        assert turn.finish_reason in ("stop", "length")
        assert turn.usage.output_tokens
        assert turn.usage.input_tokens
        assert turn.report.lost == 0


def test_a_turn_cut_during_prefill_is_replayed(local_model: LocalModel) -> None:
    long = "The tide goes out and the tide comes in. " * 120
    with CuttingProxy(target=("127.0.0.1", local_model.port), idle=0.05, how="rst", cuts=1) as proxy:
        client = unbroken.Client(base_url=f"http://127.0.0.1:{proxy.port}/v1", proxy="")
        with client, client.stream(long, max_tokens=8, cache_prompt=False) as turn:
            turn.read()
        assert proxy.cuts_made == 1
    assert turn.text
    assert [attempt.failure for attempt in turn.report.attempts] == ["reset", None]


@pytest.mark.parametrize("fault", ["rst@after_role", "clean_end@after_events:1", "status=429@before_headers"])
def test_a_turn_of_it_is_broken_on_script(fault: str, local_model: LocalModel) -> None:
    with FaultProxy(local_model.url, faults=[parse_fault(fault)]) as proxy:
        with unbroken.Client(base_url=proxy.url, proxy="") as client:
            with client.stream("Say hello.", max_tokens=16, temperature=0) as turn:
                turn.read()
            assert turn.text
            assert turn.report.lost == 1
        assert proxy.wait_for(lambda: len(proxy.passed) == 2, 30)
        assert [told.end for told in proxy.passed] == ["fault", "whole"]
        assert proxy.passed[1].events > len(turn.text.split())


def test_the_demo_shows_one_failing_and_one_surviving() -> None:
    try:
        find_weights()
    except LocalModelMissingError as exc:
        missing(str(exc))
    pytest.importorskip("openai", reason="the demo compares with the openai SDK: pip install openai")
    ran = subprocess.run(
        [sys.executable, "-m", "unbroken", "demo"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "a real model" in ran.stdout
    assert "✗ failed: APIConnectionError" in ran.stdout
    assert "✓ answered, whole; 1 attempt lost" in ran.stdout
    assert ran.stderr == ""


def test_the_demo_goes_on_without_a_local_model() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "unbroken", "demo", "--scripted"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "a scripted upstream" in ran.stdout
    assert "✓ answered, whole; 1 attempt lost" in ran.stdout
