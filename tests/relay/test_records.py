"""How a turn ended, from what is known of it; and the cuts that it went through."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.report import AttemptReport, Report
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    StreamCut,
    TurnError,
    Unreachable,
)
from unbroken.relay.records import Cut, Outcome, TurnRecord, cuts_of, outcome_of


def attempt(failure: str | None = None, phase: Phase = Phase.COMPLETE, **fields: Any) -> AttemptReport:
    return AttemptReport(**{"number": 1, "phase": phase, "failure": failure, **fields})


def report(*attempts: AttemptReport) -> Report:
    return Report(attempts=attempts)


def turn(*attempts: AttemptReport, **fields: Any) -> TurnRecord:
    facts = {"id": "cafe0001", "started": 1000.0, "elapsed": 5.0, "upstream": "lab", "dialect": "openai-chat"}
    return TurnRecord(**{**facts, "streaming": True, "attempts": attempts, **fields})


HANDED_ON = {
    Row.BUSY: Outcome.REFUSED,
    Row.GATEWAY_GAVE_UP: Outcome.REFUSED,
    Row.REFUSED: Outcome.REFUSED,
    Row.OTHER_CONTENT: Outcome.UNEXPECTED,
    Row.TRANSIENT_ERROR: Outcome.FAILED,
    Row.PERMANENT_ERROR: Outcome.FAILED,
}
"""What is handed on to the client as it came, and what that is. Anything else was noted after the answer settled."""


class TestOutcome:
    @pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.code)
    def test_of_what_was_handed_on_to_its_end(self, failure: Failure) -> None:
        expected = HANDED_ON.get(failure.row, Outcome.ANSWERED)
        assert outcome_of(report(attempt("reset"), attempt(failure.code)), None) is expected

    def test_of_a_turn_that_went_well(self) -> None:
        assert outcome_of(report(attempt()), None) is Outcome.ANSWERED
        assert outcome_of(report(attempt("refused"), attempt()), None) is Outcome.ANSWERED
        assert outcome_of(report(), None) is Outcome.ANSWERED

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (StreamCut("", phase=Phase.HEADERS), Outcome.LOST),
            (StreamCut("", phase=Phase.PRELUDE), Outcome.LOST),
            (StreamCut("", phase=Phase.OUTPUT), Outcome.CUT),
            (Unreachable("", phase=Phase.CONNECT), Outcome.UNREACHABLE),
            (Unreachable("", phase=Phase.HEADERS), Outcome.UNREACHABLE),
            (FirstOutputTimeout("", phase=Phase.PRELUDE), Outcome.TIMED_OUT),
            (FirstOutputTimeout("", phase=Phase.HEADERS), Outcome.TIMED_OUT),
            (MalformedStream("", phase=Phase.PRELUDE), Outcome.MALFORMED),
            (CallerTimeout("read", phase=Phase.OUTPUT), Outcome.CUT),
        ],
        ids=lambda value: value.code if isinstance(value, TurnError) else None,
    )
    def test_of_a_failure(self, error: TurnError, outcome: Outcome) -> None:
        assert outcome_of(report(attempt("reset", Phase.PRELUDE)), error) is outcome


class TestSaved:
    def test_is_an_answer_after_a_loss(self) -> None:
        assert turn(attempt("reset"), attempt(), outcome=Outcome.ANSWERED).saved

    @pytest.mark.parametrize(
        ("attempts", "outcome"),
        [
            ([attempt()], Outcome.ANSWERED),
            ([attempt("reset", Phase.SETTLED)], Outcome.ANSWERED),
            ([attempt("reset"), attempt("refused")], Outcome.REFUSED),
            ([attempt("reset"), attempt("cancelled")], Outcome.LEFT),
            ([attempt("reset"), attempt()], None),
        ],
    )
    def test_is_nothing_else(self, attempts: list[AttemptReport], outcome: Outcome | None) -> None:
        assert not turn(*attempts, outcome=outcome).saved


class TestCuts:
    def test_are_dated_by_the_attempts_own_end(self) -> None:
        found = cuts_of(
            turn(
                attempt("reset", Phase.PRELUDE, after=0.5, elapsed=61.0, silent=60.0),
                attempt("idle_timeout", Phase.HEADERS, after=62.0, elapsed=60.0, silent=59.5, pinged=True),
                attempt(after=122.0, elapsed=10.0),
            )
        )
        assert found == [Cut(1061.5, 60.0, pinged=False), Cut(1122.0, 59.5, pinged=True)]

    @pytest.mark.parametrize(
        "other",
        [
            attempt("reset", Phase.OUTPUT, silent=60.0),
            attempt("reset", Phase.SETTLED, silent=60.0),
            attempt("reset", Phase.PRELUDE, silent=0.9),
            attempt("busy", Phase.HEADERS, silent=60.0),
            attempt("cancelled", Phase.PRELUDE, silent=60.0),
            attempt(None, Phase.PRELUDE, silent=60.0),
        ],
        ids=["after output", "after settling", "not silent", "a status", "the client's leaving", "one that runs"],
    )
    def test_are_nothing_else(self, other: AttemptReport) -> None:
        assert cuts_of(turn(other)) == []


def test_a_record_travels_as_json() -> None:
    record = turn(attempt("reset", Phase.PRELUDE, headers_after=0.25), outcome=Outcome.CUT, first_output=1.5)
    assert msgspec.json.decode(msgspec.json.encode(record), type=TurnRecord) == record
    assert msgspec.json.decode(msgspec.json.encode(record))["outcome"] == "cut"
