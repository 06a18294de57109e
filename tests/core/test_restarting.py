"""``after_output="restart"``: a cut after output, where the caller can be told that its answer begins again."""

from __future__ import annotations

from typing import Any

import pytest

from core.playbook import (
    ANSWER,
    DONE,
    INVALID,
    OVERLOADED,
    ROLE,
    STOP,
    Playbook,
    again,
    answers,
    begins_again,
    brings,
    delta,
    done,
    ends,
    fails,
    is_cancelled,
    is_lost,
    is_unreachable,
    sends,
    speaks,
    text,
)
from unbroken.core.actions import EndTurn, Fail, Give
from unbroken.core.events import Restarted
from unbroken.core.failures import Failure, Phase
from unbroken.core.policy import HOLDS, Policy, refuse_restart
from unbroken.drivers.notices import describe, restarted
from unbroken.errors import StreamCut, UsageError

HALF = ROLE + text("Hel")


def restarting(**more: Any) -> Playbook:
    return Playbook(after_output="restart", **{"may_restart": True} | more)


def cut(**more: Any) -> Playbook:
    """Half of an answer was handed on, and the connection is lost; another attempt was sent."""
    play = restarting(**more) >> answers(content_length="999") >> brings(HALF) << speaks(HALF)
    return play >> is_lost(Failure.RESET) << again("restart", delay=0)


class TestTheAnswerBeginsAgain:
    def test_with_the_first_bytes_of_the_new_attempt(self) -> None:
        play = cut() >> answers() >> brings(ROLE)
        assert play.report.restarts == ()
        play >> brings(text("Hello")) << begins_again(ROLE + text("Hello"), 2, character=3)
        play >> brings(STOP + DONE) << done(Give(STOP + DONE)) >> ends() << EndTurn()
        assert play.report.restarts == (Restarted(2, 3),)
        assert (play.report.replays, play.report.seams) == (1, ())
        assert [attempt.billed for attempt in play.attempts] == ["yes", "yes"]

    def test_the_length_of_the_first_attempt_does_not_hold_any_more(self) -> None:
        head = cut().head
        assert head is not None
        assert "content-length" not in head.fields

    def test_as_often_as_replays_allow(self) -> None:
        play = restarting(replays=2, jitter=1.0) >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(Failure.RESET) << again("restart", delay=0, attempt=1, of=3)
        play >> answers() >> brings(HALF) << begins_again(HALF, 2)
        play >> ends() << again("restart", delay=0.25, attempt=2, of=3, failure=Failure.UNFINISHED)
        play >> answers() >> brings(HALF) << begins_again(HALF, 3)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "after output: the answer is not whole")
        assert "2 replays used up; 3 attempts in all" in str(play.error)
        assert len(play.report.restarts) == 2

    @pytest.mark.parametrize(
        "failure", [Failure.RESET, Failure.IDLE_TIMEOUT, Failure.STALLED, Failure.DEAD_PATH, Failure.NOT_PROCESSED]
    )
    def test_whatever_the_loss(self, failure: Failure) -> None:
        play = restarting() >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(failure) << again("restart", delay=0, failure=failure)

    def test_what_came_with_the_failure_is_handed_on_before_it_counts(self) -> None:
        play = restarting() >> answers() >> brings(HALF + text("lo") + DONE)
        play << speaks(HALF + text("lo")) << again("restart", delay=0, failure=Failure.UNFINISHED)

    def test_the_report_of_an_error_in_the_same_bytes_has_it(self) -> None:
        play = cut(replays=1) >> answers() >> brings(HALF + DONE)
        play << begins_again(HALF, 2, character=3) << fails(StreamCut)
        assert play.error is not None
        assert play.error.report is not None
        assert play.error.report.restarts == (Restarted(2, 3),)

    def test_output_counts_as_handed_on_by_the_choice_of_hold(self) -> None:
        thought = delta(reasoning_content="Hm.")
        play = restarting(hold="reasoning") >> answers() >> brings(thought) >> is_lost(Failure.RESET)
        play << again("replay", delay=0) >> answers() >> brings(thought + text("Hel")) << speaks(thought + text("Hel"))
        play >> is_lost(Failure.RESET, after=1) << again("restart", delay=0.5)
        play >> answers() >> brings(thought) >> brings(text("A")) << begins_again(thought + text("A"), 3)

    def test_it_is_told_in_one_line(self) -> None:
        play = restarting() >> answers() >> brings(HALF) << speaks(HALF) >> is_lost(Failure.RESET, after=12)
        told = [action for action in play.rest() if hasattr(action, "event")]
        assert describe(told[0].event) == (
            "cut after 12.0 s, after output (connection reset) · restarting, attempt 2 of 4"
        )
        assert restarted([1240]) == "restarted after character 1,240"
        assert restarted([3, 5]) == "restarted after characters 3 and 5"


class TestNoOtherAnswerComes:
    """The caller keeps what it has, and gets an error that says so: nothing of another response is handed on."""

    @pytest.mark.parametrize("failure", [Failure.RESET, Failure.CLOSED])
    def test_lost_before_output(self, failure: Failure) -> None:
        self.says_so(cut(replays=1) >> answers() >> brings(ROLE) >> is_lost(failure), "1 replay used up")

    def test_a_lost_attempt_is_replayed_and_begins_again_all_the_same(self) -> None:
        play = cut(jitter=1.0) >> is_lost(Failure.RESET) << again("replay", delay=0.25)
        play >> answers() >> brings(ANSWER) << begins_again(ANSWER, 3) >> ends() << EndTurn()

    def test_unreachable(self) -> None:
        play = cut(retries=0) >> is_unreachable()
        self.says_so(play, "connection refused")

    def test_a_status_that_passes_is_waited_for(self) -> None:
        play = cut() >> answers(429, retry_after="2") >> ends() << again("retry", delay=2)
        play >> answers() >> brings(ANSWER) << begins_again(ANSWER, 3)

    @pytest.mark.parametrize("status", [401, 404, 429, 302])
    def test_a_status_that_does_not(self, status: int) -> None:
        play = cut(retries=0) >> answers(status, "application/json")
        self.says_so(play, f"HTTP {status} to the request for another answer")

    def test_a_status_that_says_in_its_body_that_it_will_not_pass(self) -> None:
        quota = b'{"error": {"code": "insufficient_quota", "message": "no money"}}'
        self.says_so(cut() >> answers(429, "application/json") >> brings(quota) >> ends(), "HTTP 429")

    def test_another_content_type(self) -> None:
        self.says_so(cut() >> answers(200, "text/html") >> brings(b"<html>log in</html>"))

    @pytest.mark.parametrize("error", [OVERLOADED, INVALID])
    def test_an_error_in_the_stream(self, error: bytes) -> None:
        self.says_so(cut(replays=1) >> answers() >> brings(error))

    def test_no_output_in_time(self) -> None:
        self.says_so(cut() >> answers() >> is_lost(Failure.DEADLINE, after=900))

    def says_so(self, play: Playbook, words: str = "") -> None:
        play.rest()
        error = play.turn.next().error  # type: ignore[union-attr]
        assert type(error) is StreamCut
        assert str(error).startswith("the answer was cut, and another answer did not come: ")
        assert words in str(error)
        assert error.phase is Phase.OUTPUT
        assert play.report.restarts == ()


class TestItDoesNotBeginAgain:
    def test_where_the_caller_cannot_be_told(self) -> None:
        play = restarting(may_restart=False) >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(Failure.RESET) << fails(StreamCut)

    def test_without_being_asked(self) -> None:
        play = Playbook(may_restart=True) >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(Failure.RESET) << fails(StreamCut)

    def test_a_call_that_acts_on_the_world(self) -> None:
        play = restarting(acts=True) >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "acts on the world")

    def test_without_replays(self) -> None:
        play = restarting(replays=0) >> answers() >> brings(HALF) << speaks(HALF)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "no replays allowed")

    def test_after_the_answer_has_settled(self) -> None:
        play = restarting() >> answers() >> brings(HALF + STOP) << speaks(HALF + STOP)
        play.rest()
        play >> is_lost(Failure.RESET)
        assert isinstance(play.rest()[-1], EndTurn)

    def test_after_an_error_of_the_provider(self) -> None:
        play = restarting() >> answers() >> brings(HALF) << speaks(HALF) >> brings(OVERLOADED) << Give(OVERLOADED)
        play >> ends() << EndTurn()

    @pytest.mark.parametrize(
        ("status", "content_type"), [(401, "application/json"), (404, "text/html"), (200, "text/html")]
    )
    def test_another_response_than_an_answer(self, status: int, content_type: str) -> None:
        play = restarting() >> answers(status, content_type)
        play.rest()
        play >> brings(b"<html>no answer, and")
        play.rest()
        play >> is_lost(Failure.TRUNCATED)
        assert isinstance(play.rest()[-1], Fail)

    def test_when_the_caller_leaves(self) -> None:
        play = cut() >> answers() >> is_cancelled() << EndTurn()
        assert play.attempts[-1].failure == "cancelled"

    def test_a_call_that_is_not_streamed(self) -> None:
        play = restarting(streaming=False) << sends(1) >> answers(200, "application/json") >> brings(b'{"a": ')
        play >> is_lost(Failure.RESET) << again("replay", delay=0)


@pytest.mark.parametrize("hold", HOLDS)
def test_it_is_refused_where_bytes_are_handed_on(hold: Any) -> None:
    refuse_restart(Policy(hold=hold), "a relay")
    refuse_restart(Policy(hold=hold, after_output="continue"), "a relay")
    with pytest.raises(UsageError, match=r"a relay cannot begin an answer again .* --hold answer"):
        refuse_restart(Policy(hold=hold, after_output="restart"), "a relay")
