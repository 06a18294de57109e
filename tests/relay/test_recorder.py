"""What is recorded of requests: what is counted, what is kept, what is new, how a turn ended and where it was cut."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import pytest

from relay.records import STARTED, answer, cut, other, turn
from unbroken.core.actions import RetryEvent
from unbroken.core.advice import SilentCut
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.report import AttemptReport, Report
from unbroken.core.route import RouteRecord
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    StreamCut,
    TurnError,
    Unreachable,
)
from unbroken.relay.recorder import (
    CUTS,
    LIVE,
    RECENT,
    Outcome,
    Recorder,
    RequestRecord,
    Snapshot,
    Totals,
    merged,
    outcome_of,
)
from unbroken.relay.turns import RelayedTurn


@dataclass
class Known:
    """A turn of which no more than its record matters."""

    facts: RequestRecord

    @property
    def id(self) -> str:
        return self.facts.id

    def record(self) -> RequestRecord:
        return self.facts


def start(recorder: Recorder, *records: RequestRecord) -> None:
    for record in records:
        recorder.start(cast(RelayedTurn, Known(record)))


def end(recorder: Recorder, *records: RequestRecord) -> None:
    for record in records:
        start(recorder, record)
        recorder.end(record)
        assert recorder.recent[0] is record


def numbered(count: int, first: int = 0) -> list[RequestRecord]:
    return [turn(id=f"{first + n:08x}", started=STARTED + first + n) for n in range(count)]


def look(recorder: Recorder, since: int = 0) -> Snapshot:
    return recorder.snapshot("1.2", ("lab",), since)


def ids(turns: Sequence[RequestRecord]) -> list[int]:
    return [int(record.id, 16) for record in turns]


class TestCounts:
    def test_each_outcome_as_what_it_is(self) -> None:
        recorder = Recorder()
        end(
            recorder,
            turn(),
            turn(cut(), answer(2)),
            turn(cut(), cut(2), outcome=Outcome.LOST),
            turn(cut(phase=Phase.OUTPUT), outcome=Outcome.CUT),
            turn(outcome=Outcome.REFUSED),
            turn(outcome=Outcome.LEFT),
        )
        assert recorder.totals == Totals(turns=6, answered=2, saved=1, cut=2, passed=0)

    def test_what_was_no_turn_where_it_was_passed_and_nothing_else_of_it(self) -> None:
        recorder = Recorder()
        for outcome in (Outcome.PASSED, Outcome.PASSED, Outcome.CUT, Outcome.LEFT, Outcome.REJECTED):
            recorder.end(other(outcome=outcome))
        assert recorder.totals == Totals(passed=2)
        assert look(recorder).recent == ()

    def test_begin_with_nothing(self) -> None:
        snapshot = look(Recorder())
        assert (snapshot.running, snapshot.live, snapshot.recent, snapshot.cuts, snapshot.advice) == (0, (), (), (), "")
        assert snapshot.totals == Totals()
        assert (snapshot.version, snapshot.upstreams) == ("1.2", ("lab",))
        assert abs(snapshot.now - time.time()) < 5
        assert snapshot.started <= snapshot.now


class TestObservers:
    def test_each_is_told_everything_as_it_happens(self) -> None:
        told: list[tuple[Any, ...]] = []

        class Observer:
            def __init__(self, name: str) -> None:
                self.name = name

            def started(self) -> None:
                told.append((self.name, "started"))

            def retried(self, turn_id: str, event: RetryEvent) -> None:
                told.append((self.name, turn_id, event))

            def ended(self, record: RequestRecord) -> None:
                told.append((self.name, record, recorder.totals.turns, recorder.totals.passed))

        recorder = Recorder(Observer("a"), Observer("b"))
        again = RetryEvent("replay", 1, 4, Failure.RESET, cut(), 0.0, "")
        record, passed = turn(cut(), answer(2)), other()
        start(recorder, record)
        recorder.retry(record.id, again)
        recorder.end(record)
        recorder.end(passed)
        for name in ("a", "b"):
            assert [event[1:] for event in told if event[0] == name] == [
                ("started",),
                (record.id, again),
                (record, 1, 0),
                (passed, 1, 1),
            ]


class TestCaps:
    def test_the_last_turns_are_kept_newest_first(self) -> None:
        recorder = Recorder()
        end(recorder, *numbered(RECENT + 5))
        assert ids(look(recorder).recent) == list(reversed(range(5, RECENT + 5)))
        assert look(recorder).totals.turns == RECENT + 5

    def test_the_last_cuts_are_kept_oldest_first(self) -> None:
        recorder = Recorder()
        end(recorder, *(turn(cut(), cut(2, after=100.0 + n)) for n in range(CUTS)))
        cuts = look(recorder).cuts
        assert len(cuts) == CUTS
        assert cuts[-1].at == STARTED + 100 + CUTS - 1 + 61

    def test_the_oldest_running_turns_are_shown_and_all_are_counted(self) -> None:
        recorder, records = Recorder(), numbered(LIVE + 5)
        start(recorder, *records)
        assert ids(look(recorder).live) == list(range(LIVE))
        assert look(recorder).running == LIVE + 5
        for record in records[:10]:
            recorder.end(record)
        assert ids(look(recorder).live) == list(range(10, LIVE + 5))
        assert look(recorder).running == LIVE - 5

    def test_a_turn_may_end_twice(self) -> None:
        recorder, record = Recorder(), turn()
        start(recorder, record)
        recorder.end(record)
        recorder.end(record)
        assert look(recorder).running == 0


class TestSince:
    def test_only_what_has_ended_since_then_is_told(self) -> None:
        recorder = Recorder()
        end(recorder, turn(cut(), answer(2)), *numbered(3))
        seen = look(recorder).totals.turns
        assert look(recorder, seen).recent == ()
        assert look(recorder, seen).cuts == ()
        assert look(recorder, seen).advice == ""
        end(recorder, *numbered(2, first=10), turn(cut(silent=7.0), answer(2), id="000000ff"))
        new = look(recorder, seen)
        assert ids(new.recent) == [255, 11, 10]
        assert [found.silent for found in new.cuts] == [7.0]
        assert new.totals.turns == 7

    def test_cuts_stay_in_order(self) -> None:
        recorder = Recorder()
        end(recorder, turn())
        end(recorder, turn(cut(silent=1.0), cut(2, 2.0), answer(3)), turn(cut(silent=3.0), answer(2)))
        assert [found.silent for found in look(recorder, 1).cuts] == [1.0, 2.0, 3.0]

    def test_more_than_is_kept_is_not_told(self) -> None:
        recorder = Recorder()
        end(recorder, *numbered(2 * RECENT))
        assert len(look(recorder, 1).recent) == RECENT

    def test_another_process_of_the_same_name_has_news_once_it_has_as_many(self) -> None:
        recorder = Recorder()
        end(recorder, *numbered(2))
        assert look(recorder, 5).recent == ()


class TestMerged:
    def test_is_one_snapshot(self) -> None:
        recorders = Recorder(), Recorder()
        end(recorders[0], turn(cut(silent=5.0), answer(2), id="01", started=STARTED + 2, elapsed=70))
        end(recorders[0], turn(id="03", started=STARTED + 80))
        end(recorders[1], turn(cut(silent=9.0), answer(2), id="02", started=STARTED + 1, elapsed=75))
        for recorder, began in zip(recorders, (10, 9), strict=True):
            start(recorder, turn(id=f"{began:02x}", started=STARTED + began, outcome=None))
        recorders[1].totals.passed = 4
        snapshots = [look(recorder) for recorder in recorders]
        both = merged(snapshots)
        assert both.running == 2
        assert ids(both.live) == [9, 10]
        assert ids(both.recent) == [3, 2, 1]
        assert [found.silent for found in both.cuts] == [5.0, 9.0]
        assert both.totals == Totals(turns=3, answered=3, saved=2, cut=0, passed=4)
        assert both.started == min(snapshot.started for snapshot in snapshots)
        assert both.now == snapshots[0].now
        assert (both.version, both.upstreams) == ("1.2", ("lab",))

    def test_keeps_no_more_than_one_recorder_does(self) -> None:
        recorders = Recorder(), Recorder()
        for number, recorder in enumerate(recorders):
            end(recorder, *(turn(*[cut(n + 1) for n in range(10)], outcome=Outcome.LOST) for _ in range(RECENT)))
            end(recorder, *numbered(RECENT, first=1000 * number))
            start(recorder, *numbered(LIVE, first=1000 * number))
        both = merged([look(recorder) for recorder in recorders])
        assert ids(both.live) == list(range(LIVE))
        assert both.running == 2 * LIVE
        assert ids(both.recent) == [1000 + n for n in reversed(range(RECENT))]
        assert len(both.cuts) == CUTS

    def test_clusters_show_across_processes(self) -> None:
        recorders = Recorder(), Recorder(), Recorder()
        for recorder in recorders:
            end(recorder, turn(cut(), answer(2)))
        snapshots = [look(recorder) for recorder in recorders]
        assert [snapshot.advice for snapshot in snapshots] == ["", "", ""]
        found = merged(snapshots).advice
        assert found.startswith("something on the way cuts idle connections after about 60 s")

    def test_survives_the_way_from_process_to_process(self) -> None:
        recorder = Recorder()
        start(recorder, turn(cut(), outcome=None, id="0a"))
        end(
            recorder,
            turn(
                cut(detail="[Errno 104]"),
                answer(2, http_version="HTTP/2", route=RouteRecord(pings_sent=2), lowered_ping=1.5),
            ),
        )
        snapshot = look(recorder)
        assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


def test_a_look_at_many_turns_is_cheap() -> None:
    recorder = Recorder()
    end(recorder, *(turn(cut(), answer(2), id=f"{n:08x}") for n in range(1000)))
    start(recorder, *numbered(2000))
    took = []
    for _ in range(50):
        began = time.process_time()
        look(recorder, 1000)
        took.append(time.process_time() - began)
    assert min(took) < 0.005  # four a second: two per cent of a core
    assert pytest.approx(recorder.totals.turns) == 1000


# One record


def attempt(failure: str | None = None, phase: Phase = Phase.COMPLETE, **fields: Any) -> AttemptReport:
    return AttemptReport(**{"number": 1, "phase": phase, "failure": failure, **fields})


def report(*attempts: AttemptReport) -> Report:
    return Report(attempts=attempts)


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
        record = turn(
            attempt("reset", Phase.PRELUDE, after=0.5, elapsed=61.0, silent=60.0, http_version="HTTP/1.1"),
            attempt("closed", Phase.HEADERS, after=62.0, elapsed=60.0, silent=59.5, route=RouteRecord(kept_busy=True)),
            attempt(after=122.0, elapsed=10.0),
            started=1000.0,
        )
        assert record.cuts == [
            SilentCut(at=1061.5, silent=60.0, pinged=False, http_version="HTTP/1.1"),
            SilentCut(at=1122.0, silent=59.5, pinged=True, route=RouteRecord(kept_busy=True)),
        ]

    @pytest.mark.parametrize(
        "another",
        [
            attempt("reset", Phase.OUTPUT, silent=60.0),
            attempt("reset", Phase.SETTLED, silent=60.0),
            attempt("reset", Phase.PRELUDE, silent=0.9),
            attempt("busy", Phase.HEADERS, silent=60.0),
            attempt("gateway_gave_up", Phase.HEADERS, silent=60.0, status=503),
            attempt("cancelled", Phase.PRELUDE, silent=60.0),
            attempt(None, Phase.PRELUDE, silent=60.0),
        ],
        ids=[
            "after output",
            "after settling",
            "not silent",
            "a status",
            "a late 503",
            "the client's leaving",
            "one that runs",
        ],
    )
    def test_are_nothing_else(self, another: AttemptReport) -> None:
        assert turn(another).cuts == []


def test_a_record_travels_as_json() -> None:
    record = turn(attempt("reset", Phase.PRELUDE, headers_after=0.25), outcome=Outcome.CUT, first_output=1.5)
    assert msgspec.json.decode(msgspec.json.encode(record), type=RequestRecord) == record
    assert msgspec.json.decode(msgspec.json.encode(record))["outcome"] == "cut"
