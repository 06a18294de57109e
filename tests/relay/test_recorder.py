"""The board: what it counts, how much it keeps, what is new since somebody looked, and when it has advice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec
import pytest

from relay.noted import STARTED, answer, cut, turn
from unbroken.core.failures import Phase
from unbroken.relay.board import CUTS, LIVE, RECENT, Board, Snapshot, Totals, advice, merged
from unbroken.relay.records import Cut, Outcome, TurnRecord
from unbroken.relay.turns import RelayedTurn


@dataclass
class Known:
    """A turn of which no more than its record matters."""

    facts: TurnRecord

    @property
    def id(self) -> str:
        return self.facts.id

    def record(self) -> TurnRecord:
        return self.facts


def enter(board: Board, record: TurnRecord) -> RelayedTurn:
    running = cast(RelayedTurn, Known(record))
    board.enter(running)
    return running


def end(board: Board, *records: TurnRecord) -> None:
    for record in records:
        assert board.leave(enter(board, record)) is record


def numbered(count: int, first: int = 0) -> list[TurnRecord]:
    return [turn(id=f"{first + n:08x}", started=STARTED + first + n) for n in range(count)]


def look(board: Board, since: int = 0) -> Snapshot:
    return board.snapshot("1.2", ("lab",), since)


def ids(turns: Sequence[TurnRecord]) -> list[int]:
    return [int(record.id, 16) for record in turns]


class TestCounts:
    def test_each_outcome_as_what_it_is(self) -> None:
        board = Board()
        end(
            board,
            turn(),
            turn(cut(), answer(2)),
            turn(cut(), cut(2), outcome=Outcome.LOST),
            turn(cut(phase=Phase.OUTPUT), outcome=Outcome.CUT),
            turn(outcome=Outcome.REFUSED),
            turn(outcome=Outcome.LEFT),
        )
        assert board.totals == Totals(turns=6, answered=2, saved=1, cut=2, passed=0)

    def test_begin_with_nothing(self) -> None:
        picture = look(Board())
        assert (picture.running, picture.live, picture.recent, picture.cuts, picture.advice) == (0, (), (), (), "")
        assert picture.totals == Totals()
        assert (picture.version, picture.upstreams) == ("1.2", ("lab",))
        assert abs(picture.now - time.time()) < 5
        assert picture.started <= picture.now


class TestCaps:
    def test_the_last_turns_are_kept_newest_first(self) -> None:
        board = Board()
        end(board, *numbered(RECENT + 5))
        assert ids(look(board).recent) == list(reversed(range(5, RECENT + 5)))
        assert look(board).totals.turns == RECENT + 5

    def test_the_last_cuts_are_kept_oldest_first(self) -> None:
        board = Board()
        end(board, *(turn(cut(), cut(2, after=100.0 + n)) for n in range(CUTS)))
        cuts = look(board).cuts
        assert len(cuts) == CUTS
        assert cuts[-1].at == STARTED + 100 + CUTS - 1 + 61

    def test_the_oldest_running_turns_are_shown_and_all_are_counted(self) -> None:
        board = Board()
        running = [enter(board, record) for record in numbered(LIVE + 5)]
        assert ids(look(board).live) == list(range(LIVE))
        assert look(board).running == LIVE + 5
        for known in running[:10]:
            board.leave(known)
        assert ids(look(board).live) == list(range(10, LIVE + 5))
        assert look(board).running == LIVE - 5

    def test_a_turn_may_leave_twice(self) -> None:
        board = Board()
        running = enter(board, turn())
        board.leave(running)
        board.leave(running)
        assert look(board).running == 0


class TestSince:
    def test_only_what_has_ended_since_then_is_told(self) -> None:
        board = Board()
        end(board, turn(cut(), answer(2)), *numbered(3))
        seen = look(board).totals.turns
        assert look(board, seen).recent == ()
        assert look(board, seen).cuts == ()
        assert look(board, seen).advice == ""
        end(board, *numbered(2, first=10), turn(cut(silent=7.0), answer(2), id="000000ff"))
        new = look(board, seen)
        assert ids(new.recent) == [255, 11, 10]
        assert [found.silent for found in new.cuts] == [7.0]
        assert new.totals.turns == 7

    def test_cuts_stay_in_order(self) -> None:
        board = Board()
        end(board, turn())
        end(board, turn(cut(silent=1.0), cut(2, 2.0), answer(3)), turn(cut(silent=3.0), answer(2)))
        assert [found.silent for found in look(board, 1).cuts] == [1.0, 2.0, 3.0]

    def test_more_than_is_kept_is_not_told(self) -> None:
        board = Board()
        end(board, *numbered(2 * RECENT))
        assert len(look(board, 1).recent) == RECENT

    def test_another_process_of_the_same_name_has_news_once_it_has_as_many(self) -> None:
        board = Board()
        end(board, *numbered(2))
        assert look(board, 5).recent == ()


class TestMerged:
    def test_is_one_picture(self) -> None:
        boards = Board(), Board()
        end(boards[0], turn(cut(silent=5.0), answer(2), id="01", started=STARTED + 2, elapsed=70))
        end(boards[0], turn(id="03", started=STARTED + 80))
        end(boards[1], turn(cut(silent=9.0), answer(2), id="02", started=STARTED + 1, elapsed=75))
        for board, began in zip(boards, (10, 9), strict=True):
            enter(board, turn(id=f"{began:02x}", started=STARTED + began, outcome=None))
        boards[1].totals.passed = 4
        pictures = [look(board) for board in boards]
        both = merged(pictures)
        assert both.running == 2
        assert ids(both.live) == [9, 10]
        assert ids(both.recent) == [3, 2, 1]
        assert [found.silent for found in both.cuts] == [5.0, 9.0]
        assert both.totals == Totals(turns=3, answered=3, saved=2, cut=0, passed=4)
        assert both.started == min(picture.started for picture in pictures)
        assert both.now == pictures[0].now
        assert (both.version, both.upstreams) == ("1.2", ("lab",))

    def test_keeps_no_more_than_one_board_does(self) -> None:
        boards = Board(), Board()
        for number, board in enumerate(boards):
            end(board, *(turn(*[cut(n + 1) for n in range(10)], outcome=Outcome.LOST) for _ in range(RECENT)))
            end(board, *numbered(RECENT, first=1000 * number))
            for record in numbered(LIVE, first=1000 * number):
                enter(board, record)
        both = merged([look(board) for board in boards])
        assert ids(both.live) == list(range(LIVE))
        assert both.running == 2 * LIVE
        assert ids(both.recent) == [1000 + n for n in reversed(range(RECENT))]
        assert len(both.cuts) == CUTS

    def test_clusters_show_across_processes(self) -> None:
        boards = Board(), Board(), Board()
        for board in boards:
            end(board, turn(cut(), answer(2)))
        pictures = [look(board) for board in boards]
        assert [picture.advice for picture in pictures] == ["", "", ""]
        assert merged(pictures).advice.startswith("cuts cluster at 60 s of silence")

    def test_survives_the_way_from_process_to_process(self) -> None:
        board = Board()
        enter(board, turn(cut(), outcome=None, id="0a"))
        end(board, turn(cut(detail="[Errno 104]"), answer(2, http_version="HTTP/2", pinged=True)))
        picture = look(board)
        assert msgspec.json.decode(msgspec.json.encode(picture), type=Snapshot) == picture


def silences(*seconds: float, pinged: bool = False) -> list[Cut]:
    return [Cut(STARTED, silent, pinged) for silent in seconds]


class TestAdvice:
    def test_there_is_none_without_a_cluster(self) -> None:
        assert advice([]) == ""
        assert advice(silences(60, 60.2)) == ""
        assert advice(silences(5, 20, 60, 61, 62, 200, 400)) == ""

    def test_names_the_silence_and_what_prevents_it(self) -> None:
        said = advice(silences(60, 60.4, 61, 12))
        assert said.startswith("cuts cluster at 60 s of silence: something on the way closes idle connections")
        assert "over which PING prevents it" in said

    def test_does_not_advise_ping_where_it_was_kept_up(self) -> None:
        said = advice([*silences(60, 61), *silences(60.2, pinged=True)])
        assert "although PING kept them busy" in said
        assert "PING prevents" not in said

    def test_a_ping_elsewhere_says_nothing_of_the_cluster(self) -> None:
        assert "PING prevents" in advice([*silences(60, 61, 60.5), *silences(300, pinged=True)])

    def test_yesterday_does_not_count(self) -> None:
        old, new = silences(*[60.0] * CUTS), silences(*(5.0 * 1.5**n for n in range(20))) * 5
        assert advice(old).startswith("cuts cluster at 60 s")
        assert "60 s" not in advice([*old, *new])


def test_a_look_at_many_turns_is_cheap() -> None:
    board = Board()
    end(board, *(turn(cut(), answer(2), id=f"{n:08x}") for n in range(1000)))
    for record in numbered(2000):
        enter(board, record)
    looks = 50
    began = time.process_time()
    for _ in range(looks):
        look(board, 1000)
    assert (time.process_time() - began) / looks < 0.005  # four a second: two per cent of a core
    assert pytest.approx(board.totals.turns) == 1000
