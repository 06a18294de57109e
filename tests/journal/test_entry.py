"""What the journal keeps of a turn's attempts, and what it does not."""

from __future__ import annotations

import msgspec
import pytest

from journal.made import HOST, NOW, PROXY, attempt, entry
from unbroken.core.failures import Failure, Phase
from unbroken.journal.entry import DAY, MAX_TEXT, AnsweredCount, answered, losses


def test_a_lost_attempt_is_kept_with_the_time_of_its_loss() -> None:
    lost = attempt(after=5.0, status=200, lowered_ping=20.0, path_source="HTTPS_PROXY")
    (kept,) = losses([lost, attempt(None, Phase.COMPLETE)], NOW, "run")
    assert (kept.at, kept.face) == (NOW + 65.0, "run")
    assert kept.attempt == msgspec.structs.replace(lost, after=0.0)


NOT_LOST = {"refused", "permanent_error", "other_content", "caller_timeout", "cancelled"}


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.code)
def test_what_was_handed_on_or_ended_by_the_caller_is_no_loss(failure: Failure) -> None:
    assert bool(losses([attempt(failure)], NOW, "run")) == (failure.code not in NOT_LOST)


@pytest.mark.parametrize("phase", [Phase.SETTLED, Phase.COMPLETE])
def test_a_failure_after_the_end_is_no_loss(phase: Phase) -> None:
    assert losses([attempt(Failure.RESET, phase)], NOW, "run") == []


def test_nothing_that_others_wrote_is_kept() -> None:
    said = {"detail": "Bearer sk-1 is wrong", "finish_reason": "said by a server", "resumes": "evt_said", "path": "x"}
    (kept,) = losses([attempt(**said)], NOW, "run")
    assert not {*said.values()} & {*map(str, msgspec.structs.astuple(kept.attempt))}


def test_a_name_is_bounded_and_can_be_written() -> None:
    (kept,) = losses([attempt(host="h" * 5000, proxy="http://\udc80:1")], NOW, "run")
    assert len(kept.attempt.route.host) == MAX_TEXT
    assert kept.attempt.route.proxy == "http://?:1"


def test_attempts_that_answered_are_counted_by_day_and_path() -> None:
    attempts = [attempt(), attempt(None, Phase.COMPLETE, status=200), attempt(Failure.RESET, Phase.SETTLED)]
    counted = AnsweredCount(int(NOW + 60) // DAY, HOST, PROXY, "HTTP/1.1")
    assert answered(attempts, NOW) == [counted, counted]


@pytest.mark.parametrize("running", [attempt(None, Phase.OUTPUT), attempt(None, Phase.HEADERS)])
def test_an_attempt_that_its_caller_left_is_neither(running: object) -> None:
    assert losses([running], NOW, "run") == answered([running], NOW) == []  # type: ignore[list-item]


def test_a_silent_cut_is_evidence_and_a_limit_of_our_own_is_not() -> None:
    cut = entry().silent_cut
    assert cut
    assert (cut.at, cut.silent, cut.route.proxy) == (NOW, 60.0, PROXY)
    assert entry(NOW, Failure.IDLE_TIMEOUT).silent_cut is None
