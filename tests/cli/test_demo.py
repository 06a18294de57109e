"""``unbroken demo``: its proxy has something to cut, however quick the model is."""

from __future__ import annotations

from typing import Any

import pytest

from unbroken.cli import demo


def ask_with_timers(quickness: float) -> tuple[list[float], demo.DemoOutcome]:
    """Return the timers of the proxies by which a model is asked that answers within so many seconds."""
    timers: list[float] = []

    def ask(port: int, body: dict[str, Any], idle: float) -> demo.DemoOutcome:
        timers.append(idle)
        return demo.DemoOutcome("a program", was_spared=idle > quickness)

    return timers, demo._until_cut(ask, 80, {})


@pytest.mark.parametrize(("quickness", "timers"), [(4.0, [1.0]), (0.4, [1.0, 0.5, 0.25])])
def test_a_model_that_is_quicker_than_the_timer_is_asked_again(quickness: float, timers: list[float]) -> None:
    used, outcome = ask_with_timers(quickness)
    assert used == timers
    assert not outcome.was_spared


def test_a_model_without_any_silence_ends_the_asking() -> None:
    used, outcome = ask_with_timers(0.0)
    assert len(used) == demo.TRIES
    assert outcome.was_spared
