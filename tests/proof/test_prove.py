"""Random schedules of faults through the core: 1,000 in the fast lane, 10,000 in the slow one; ``make prove``: 10^6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import unbroken.core.turn
from proof.prove import SEED, Proof, verdict
from proof.schedules import CHOICES, WIRES, draw
from unbroken.core import failures
from unbroken.core.attempt import Attempt
from unbroken.core.budget import RetryBudget
from unbroken.core.failures import Phase, Row, Verdict
from unbroken.core.resumption.events import ResumableEvents


def proved(schedules: int) -> Proof:
    proof = Proof(SEED)
    proof.play(schedules)
    assert proof.broken == []
    assert proof.counts["schedules"] == schedules
    return proof


def test_a_thousand_schedules_keep_the_rule() -> None:
    proved(1000)


@pytest.mark.slow
def test_ten_thousand_schedules_keep_the_rule() -> None:
    counts = proved(10_000).counts
    for what in ("ended", "StreamCut", "Unreachable", "CallerTimeout", "MalformedStream", "left"):
        assert counts[what] > 10, what
    for what in ("replays", "retries", "resumed", "continued", "restarted"):
        assert counts[what] > 100, what


def test_the_schedules_are_of_all_dialects_and_all_choices() -> None:
    drawn = [draw(1, number) for number in range(2000)]
    chosen = {(schedule.wire, schedule.choice) for schedule in drawn}
    assert chosen == {(name, choice) for name, wire in WIRES.items() for choice in wire.choices}
    assert {choice for _, choice in chosen} == set(CHOICES)
    assert len({(schedule.choice, schedule.hold) for schedule in drawn}) == len(CHOICES) * 3


def test_a_schedule_follows_from_its_seed_and_number() -> None:
    assert draw(7, 4711) == draw(7, 4711) != draw(8, 4711)


# The judge finds a core that breaks the rule


def _table(changes: Mapping[tuple[Row, Phase], Verdict]) -> dict[tuple[Row, Phase], Verdict]:
    return {**failures.TABLE, **changes}


BROKEN: dict[str, tuple[object, str, Any]] = {
    "after output it asks again": (failures, "TABLE", _table({(Row.LOST, Phase.OUTPUT): Verdict.REPLAY})),
    "a cut is called an end": (failures, "TABLE", _table({(Row.LOST, Phase.OUTPUT): Verdict.END})),
    "it gives up at once": (failures, "TABLE", _table({(Row.LOST, Phase.PRELUDE): Verdict.CUT})),
    "a clean end is an end": (Attempt, "_end_stream", lambda attempt: b""),
    "the budget is not kept": (RetryBudget, "forbids", lambda *args, **more: ""),
    "half of an event stays before the rest": (ResumableEvents, "take_up", lambda events: None),
    "Retry-After is ignored": (unbroken.core.turn, "retry_after", lambda fields, now: None),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_core_that_breaks_the_rule_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[fault])
    assert any(verdict(draw(SEED, number))[0] for number in range(1500))


def test_an_exception_that_is_none_of_ours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attempt, "data", lambda attempt, chunk: 1 / 0)
    assert "ZeroDivisionError" in {verdict(draw(SEED, number))[0].partition(":")[0] for number in range(20)}
