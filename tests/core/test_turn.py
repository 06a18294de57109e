"""The failure table, the budget and the report, as playbooks in virtual time.

Read ``>>`` as *this happens* and ``<<`` as *then that is done*; see :mod:`core.playbook`.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from core.playbook import (
    ANSWER,
    BROKEN,
    COMMENT,
    DONE,
    INVALID,
    OVERLOADED,
    ROLE,
    START,
    STOP,
    USAGE,
    Playbook,
    again,
    answers,
    brings,
    chunk,
    delta,
    done,
    ends,
    fails,
    gives_head,
    is_cancelled,
    is_lost,
    is_unreachable,
    reads,
    sends,
    speaks,
    text,
)
from unbroken.core.actions import Drop, EndTurn, Fail, Give, Limits, LowerPing, Notify, Read, Send, Wait
from unbroken.core.attempt import MAX_REFUSAL
from unbroken.core.budget import NETWORK_AWAY
from unbroken.core.deadlines import LINGER, READ_REFUSAL, USAGE_WAIT
from unbroken.core.failures import Failure, Phase, Row, described
from unbroken.core.route import RouteRecord
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    StreamCut,
    UnexpectedResponse,
    Unreachable,
)

LOST = [failure for failure in Failure if failure.row is Row.LOST]
MISCONFIGURED = [failure for failure in Failure if failure.row is Row.MISCONFIGURED]
UNREACHABLE = [failure for failure in Failure if failure.row is Row.UNREACHABLE]
BUSY = [408, 409, 425, 429, 500, 502, 503, 504, 520, 529, 599]
REFUSED = [400, 401, 402, 403, 404, 405, 410, 413, 422, 451]

QUOTA = json.dumps({"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}).encode()


def spoken(**arguments: Any) -> Playbook:
    """A turn whose attempt has just spoken."""
    play = Playbook(**arguments)
    play >> answers() >> brings(ROLE + text("Hi")) << speaks(ROLE + text("Hi"))
    return play


def settled(**arguments: Any) -> Playbook:
    """A turn whose attempt has just told how it ended."""
    play = spoken(**arguments)
    play >> brings(STOP) << Give(STOP)
    return play


def finish(play: Playbook) -> Playbook:
    """The next attempt goes well."""
    return play >> answers() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()


class TestATurnThatGoesWell:
    def test_step_by_step(self) -> None:
        play = Playbook()
        play << sends(1, until=900)
        play >> answers(after=1) << reads(until=900)
        play >> brings(COMMENT, after=1) << reads(until=900)
        play >> brings(ROLE, after=20) << reads(until=900)
        play >> brings(text("Hel"), after=1) << speaks(COMMENT + ROLE + text("Hel")) << reads(until=None)
        play >> brings(text("lo"), after=1) << Give(text("lo")) << reads(until=None)
        play >> brings(STOP, after=1) << Give(STOP) << reads(until=25 + 20)
        play >> brings(USAGE, after=1) << Give(USAGE) << reads(until=26 + USAGE_WAIT)
        play >> brings(DONE, after=1) << Give(DONE) << reads(until=27 + LINGER)
        play >> ends() << EndTurn()
        [attempt] = play.attempts
        assert (attempt.number, attempt.phase, attempt.failure, attempt.status) == (1, Phase.COMPLETE, None, 200)
        assert (attempt.elapsed, attempt.billed, attempt.http_version) == (27, "yes", "HTTP/2")
        assert (play.report.retries, play.report.replays, play.report.dialect) == (0, 0, "openai-chat")

    def test_the_wires_limits_are_the_policys(self) -> None:
        play = Playbook(connect_timeout=1, idle_timeout=2, ping_interval=3, ping_timeout=4, first_output_timeout=5)
        play << done(Send(1, Limits(connect=1, idle=2, until=START + 5, ping=3, ping_timeout=4)))

    def test_the_head_is_handed_on_as_it_came(self) -> None:
        play = Playbook() >> answers(x_request_id="req_1", content_length="5") >> brings(ANSWER) << speaks(ANSWER)
        assert play.head is not None
        assert play.head.fields == {"content-type": "text/event-stream", "x-request-id": "req_1", "content-length": "5"}

    def test_an_empty_answer(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> brings(STOP) << reads(until=900)
        play >> brings(DONE) << speaks(ROLE + STOP + DONE) >> ends() << EndTurn()

    def test_an_empty_answer_is_proven_by_a_clean_end_too(self) -> None:
        Playbook() >> answers() >> brings(ROLE + STOP) >> ends() << speaks(ROLE + STOP) << EndTurn()

    def test_an_empty_answer_that_is_cut_is_replayed(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE + STOP) >> is_lost(Failure.RESET) << again("replay", delay=0)
        finish(play)

    def test_empty_pieces_change_nothing(self) -> None:
        play = Playbook() >> answers() >> brings(b"") >> brings(ROLE + text("Hi")) << speaks(ROLE + text("Hi"))
        play >> brings(b"") << reads(until=None)

    def test_what_is_where_while_it_runs(self) -> None:
        play = Playbook()
        assert (play.turn.phase, play.turn.attempt) == (Phase.CONNECT, 1)
        play >> answers() >> brings(ROLE)
        assert play.turn.phase is Phase.PRELUDE
        play >> is_lost(Failure.RESET) << again("replay", delay=0)
        assert (play.turn.phase, play.turn.attempt) == (Phase.CONNECT, 2)


@pytest.mark.parametrize("failure", LOST)
class TestTheConnectionIsLost:
    """Row 1: reset, EOF, truncated body, broken framing, dead path, reset stream, idle timeout."""

    def test_before_the_request_is_sent(self, failure: Failure) -> None:
        play = Playbook() >> is_lost(failure, sent=False) << again("retry", delay=0.5, of=11, failure=failure)
        finish(play)
        assert (play.report.retries, play.report.replays) == (1, 0)
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.CONNECT, "no")

    def test_while_waiting_for_headers(self, failure: Failure) -> None:
        play = Playbook() >> is_lost(failure) << again("replay", delay=0, of=4, failure=failure)
        finish(play)
        assert (play.report.retries, play.report.replays) == (0, 1)
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.HEADERS, "unknown")

    def test_in_the_prelude_which_nobody_ever_sees(self, failure: Failure) -> None:
        play = Playbook() >> answers(after=1) >> brings(COMMENT + ROLE) >> is_lost(failure, after=60, detail="why")
        play << again("replay", delay=0, attempt=1, of=4, failure=failure)
        finish(play)
        lost = play.attempts[0]
        assert (lost.phase, lost.billed, lost.status) == (Phase.PRELUDE, "unknown", 200)
        assert lost.detail == "why" or failure in (Failure.IDLE_TIMEOUT, Failure.STALLED)
        assert (lost.elapsed, lost.silent) == (61, 60)
        assert play.report.possibly_billed == 1

    def test_after_output(self, failure: Failure) -> None:
        play = spoken() >> brings(text("more"), after=3) << Give(text("more")) >> is_lost(failure, after=4)
        play << fails(StreamCut, "cut after 7.0 s, after output: the answer is not whole", retryable=True)
        assert (play.attempts[0].phase, play.attempts[0].failure) == (Phase.OUTPUT, failure.code)
        assert play.attempts[0].billed == "yes"

    def test_after_settling(self, failure: Failure) -> None:
        play = settled() >> is_lost(failure) << Drop() << EndTurn()
        assert (play.attempts[0].phase, play.attempts[0].failure) == (Phase.SETTLED, failure.code)
        assert play.attempts[0].billed == "yes"

    def test_after_the_terminator(self, failure: Failure) -> None:
        settled() >> brings(DONE) << Give(DONE) >> is_lost(failure) << Drop() << EndTurn()


class TestNotProcessed:
    """A stream that the server names as refused goes again, and costs nothing."""

    @pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.HEADERS])
    def test_it_is_a_retry_in_any_phase_before_output(self, phase: Phase) -> None:
        play = Playbook() >> is_lost(Failure.NOT_PROCESSED, sent=phase is Phase.HEADERS) << again("retry", delay=0.5)
        assert (play.attempts[0].phase, play.attempts[0].billed) == (phase, "no")

    def test_after_output_it_is_a_cut(self) -> None:
        spoken() >> is_lost(Failure.NOT_PROCESSED) << fails(StreamCut)


TRIED = "(tried for 10 s, the limit of Policy.unreachable_for; 6 attempts in all)"


class TestNobodyAnswers:
    """Row 2: retried for about 10 s in all."""

    @pytest.mark.parametrize("failure", UNREACHABLE)
    def test_then_somebody_does(self, failure: Failure) -> None:
        play = Playbook() >> is_unreachable(failure) << again("retry", delay=0.5, failure=failure)
        play >> is_unreachable(failure) << again("retry", delay=1.0)
        finish(play)
        assert (play.report.retries, play.attempts[0].billed) == (2, "no")

    @pytest.mark.parametrize("failure", UNREACHABLE)
    def test_for_ten_seconds_in_all(self, failure: Failure) -> None:
        play = Playbook()
        for delay in (0.5, 1, 2, 4, 2.5):
            play >> is_unreachable(failure) << again("retry", delay=delay)
        play >> is_unreachable(failure) << fails(Unreachable, TRIED, retryable=True)
        assert play.elapsed == 10

    def test_the_time_that_a_try_takes_counts(self) -> None:
        play = Playbook() >> is_unreachable(after=6) << again("retry", delay=0.5)
        play >> is_unreachable(after=3) << again("retry", delay=0.5)
        play >> is_unreachable(after=3) << fails(Unreachable, TRIED.replace("6", "3"))

    @pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
    def test_the_number_of_attempts_that_is_told_can_be_reached(self, jitter: float) -> None:
        play, told = Playbook(jitter=jitter), []
        while not isinstance((actions := play.rest())[-1], Fail):
            told += [action.event.of for action in actions if isinstance(action, Notify)]
            play.now += sum(action.seconds for action in actions if isinstance(action, Wait))
            play >> is_unreachable()
        assert 11 > told[0] >= len(play.attempts)
        assert told[-1] == len(play.attempts)

    @pytest.mark.parametrize("failure", sorted(NETWORK_AWAY, key=str))
    def test_a_turn_that_was_connected_waits_for_the_network(self, failure: Failure) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> is_lost(Failure.RESET, after=10) << again("replay", delay=0)
        while not isinstance((actions := play.rest())[-1], Fail):
            play.now += sum(action.seconds for action in actions if isinstance(action, Wait))
            play >> is_unreachable(failure)
        assert (play.elapsed, actions[-1].error.code) == (900, "unreachable")
        assert "gave up after 900 s" in str(actions[-1].error)
        assert len(play.attempts) > 11

    def test_without_a_limit_of_time_the_number_that_is_told_is_the_budgets(self) -> None:
        play = Playbook(give_up_after=math.inf) >> answers() >> is_lost(Failure.RESET) << again("replay", delay=0)
        play >> is_unreachable(Failure.NO_ROUTE) << again("retry", delay=0.5, attempt=2, of=12)
        play >> is_unreachable(Failure.NO_ROUTE) << again("retry", delay=1, attempt=3, of=13)

    def test_it_does_not_wait_for_a_server_that_refuses(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> is_lost(Failure.RESET, after=10) << again("replay", delay=0)
        while not isinstance((actions := play.rest())[-1], Fail):
            play.now += sum(action.seconds for action in actions if isinstance(action, Wait))
            play >> is_unreachable(Failure.CONNECTION_REFUSED)
        assert play.elapsed == 20
        assert "tried for 10 s" in str(actions[-1].error)

    def test_each_outage_has_its_own_ten_seconds(self) -> None:
        play = Playbook() >> is_unreachable() << again("retry", delay=0.5)
        play >> answers() >> is_lost(Failure.RESET, after=300) << again("replay", delay=0)
        play >> is_unreachable() << again("retry", delay=1)


class TestSilence:
    """An unanswered PING ends no attempt: it is a suspicion, in every phase."""

    def limits(self, play: Playbook) -> Limits:
        action = play.rest()[-1]
        assert isinstance(action, Send | Read)
        return action.limits

    def test_before_output_a_silent_response_is_waited_for(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE)
        assert (self.limits(play).ping_timeout, self.limits(play).stall) == (20, None)

    @pytest.mark.parametrize("more", [b"", STOP], ids=["output", "settled"])
    def test_after_output_it_has_stalled_at_the_limit(self, more: bytes) -> None:
        play = Playbook() >> answers() >> brings(ROLE + text("Hi") + more)
        assert (self.limits(play).ping_timeout, self.limits(play).stall) == (20, 600)

    @pytest.mark.parametrize(
        ("failure", "words"),
        [
            (Failure.STALLED, "Policy.stall_timeout and --stall"),
            (Failure.IDLE_TIMEOUT, "Policy.idle_timeout and --idle"),
        ],
    )
    def test_a_limit_that_ends_it_is_named(self, failure: Failure, words: str) -> None:
        spoken() >> is_lost(failure, after=600) << fails(StreamCut, f"nothing for 600 s, the limit of {words}")


@pytest.mark.parametrize("failure", MISCONFIGURED)
class TestMisconfigured:
    """Row 3: an error at once."""

    def test_before_the_request_is_sent(self, failure: Failure) -> None:
        play = Playbook() >> is_lost(failure, sent=False, detail="the detail")
        play << fails(Unreachable, described(failure.code, "the detail"), retryable=False)
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.CONNECT, "no")

    def test_while_it_is_being_sent(self, failure: Failure) -> None:
        Playbook() >> is_lost(failure) << fails(Unreachable, failure.phrase, retryable=False)


class TestStatusesThatMayPass:
    """Row 4: 408, 409, 425, 429, 5xx and 529, answered within 5 s."""

    @pytest.mark.parametrize("status", [status for status in BUSY if status not in (504, 524)])
    def test_retried_after_a_wait(self, status: int) -> None:
        play = Playbook() >> answers(status, "text/html", after=2) >> brings(b"<html>") >> ends()
        play << again("retry", delay=0.5, of=11, failure=Failure.BUSY)
        finish(play)
        refused = play.attempts[0]
        billed = "no" if status in (408, 409, 425, 429, 503, 529) else "unknown"
        assert (refused.status, refused.phase, refused.billed) == (status, Phase.HEADERS, billed)
        assert refused.detail == f"HTTP {status}"

    def test_retry_after_is_honoured(self) -> None:
        play = Playbook() >> answers(429, retry_after="7") >> ends() << again("retry", delay=7)
        play >> answers(429, retry_after_ms="1500") >> ends() << again("retry", delay=1.5)
        play >> answers(503, retry_after="Fri, 15 Jan 2027 08:00:20 GMT") >> ends() << again("retry", delay=11.5)
        assert play.elapsed == 20

    @pytest.mark.parametrize("value", ["0", "soon", "Fri, 15 Jan 2027 07:00:00 GMT"])
    def test_a_retry_after_that_says_nothing_leaves_the_usual_wait(self, value: str) -> None:
        Playbook() >> answers(429, retry_after=value) >> ends() << again("retry", delay=0.5)

    def test_up_to_sixty_seconds(self) -> None:
        Playbook() >> answers(429, retry_after="60") >> ends() << again("retry", delay=60)

    def test_beyond_that_the_response_is_handed_on_at_once(self) -> None:
        play = Playbook() >> answers(429, "application/json", retry_after="61") << gives_head(429)
        play >> brings(b"{}") << Give(b"{}") >> ends() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == ("busy", "no")

    def test_a_longest_wait_of_ones_own_is_no_retry_after(self) -> None:
        Playbook(backoff_initial=90, backoff_max=90) >> answers(429) >> ends() << again("retry", delay=90)

    @pytest.mark.parametrize("body", [b"", b"not JSON", b'{"error": {"type": "overloaded_error"}}'])
    def test_whatever_its_body_says(self, body: bytes) -> None:
        Playbook() >> answers(503) >> brings(body) >> ends() << again("retry", delay=0.5)

    def test_a_long_body_is_not_waited_for(self) -> None:
        Playbook() >> answers(503) >> brings(b"x" * MAX_REFUSAL) << again("retry", delay=0.5)

    def test_nor_a_slow_one(self) -> None:
        play = Playbook() >> answers(503, after=2) << reads(until=2 + READ_REFUSAL)
        play >> brings(b"x", after=1) << reads(until=2 + READ_REFUSAL)
        play >> is_lost(Failure.DEADLINE, after=4) << again("retry", delay=0.5)

    @pytest.mark.parametrize("failure", LOST)
    def test_a_cut_body_changes_nothing(self, failure: Failure) -> None:
        (
            Playbook()
            >> answers(503)
            >> brings(b"x")
            >> is_lost(failure)
            << again("retry", delay=0.5, failure=Failure.BUSY)
        )

    def test_nor_does_one_in_a_broken_encoding(self) -> None:
        Playbook() >> answers(503, content_encoding="gzip") >> brings(b"x" * 99) << again("retry", delay=0.5)

    def test_or_in_one_that_cannot_be_read(self) -> None:
        play = Playbook() >> answers(503, content_encoding="compress") >> brings(b"x" * 99) >> ends()
        play << again("retry", delay=0.5)

    def test_five_times_in_a_row_and_then_handed_on_at_once(self) -> None:
        play = Playbook()
        for delay in (0.5, 1, 2, 4, 8):
            play >> answers(529) >> ends() << again("retry", delay=delay)
        play >> answers(529) << gives_head(529) >> brings(b"why") << Give(b"why") >> ends() << EndTurn()
        assert (play.report.retries, len(play.attempts)) == (5, 6)

    def test_another_status_has_five_times_of_its_own(self) -> None:
        play = Playbook()
        for delay in (0.5, 1, 2, 4, 8):
            play >> answers(500) >> ends() << again("retry", delay=delay)
        for delay in (15, 15, 15, 15, 15):
            play >> answers(503) >> ends() << again("retry", delay=delay)
        play >> answers(503) << gives_head(503)

    def test_ten_times_where_the_server_names_the_wait_or_the_status_changes(self) -> None:
        play = Playbook()
        for number, delay in enumerate((0.5, 1, 2, 4, 8, 15, 15)):
            play >> answers((500, 503)[number % 2]) >> ends() << again("retry", delay=delay)
        for _ in range(3):
            play >> answers(503, retry_after="1") >> ends() << again("retry", delay=1)
        play >> answers(503, retry_after="1") << gives_head(503)
        assert play.report.retries == 10

    def test_an_answer_that_comes_in_the_end_is_all_that_is_seen(self) -> None:
        finish(Playbook() >> answers(500) >> brings(b"oops") >> ends() << again("retry", delay=0.5))


class TestShouldRetry:
    """The server's own word on it."""

    @pytest.mark.parametrize("word", ["false", " False "])
    def test_false_is_handed_on_at_once(self, word: str) -> None:
        play = Playbook() >> answers(500, x_should_retry=word) << gives_head(500)
        play >> brings(b"x") << Give(b"x") >> ends() << EndTurn()

    @pytest.mark.parametrize("word", ["true", " TRUE "])
    @pytest.mark.parametrize("status", [400, 404, 429])
    def test_true_is_retried_whatever_else_is_said(self, status: int, word: str) -> None:
        Playbook() >> answers(status, x_should_retry=word) >> brings(QUOTA) >> ends() << again("retry", delay=0.5)

    def test_any_other_word_is_none(self) -> None:
        Playbook() >> answers(500, x_should_retry="maybe") >> ends() << again("retry", delay=0.5)
        Playbook() >> answers(400, x_should_retry="maybe") << gives_head(400)

    def test_it_is_not_asked_where_nothing_went_wrong(self) -> None:
        Playbook() >> answers(302, x_should_retry="true") << gives_head(302)


class TestStatusesThatComeLate:
    """Row 5: after more than 5 s it is a gateway's idle timer, and the work may have been done."""

    @pytest.mark.parametrize("status", [status for status in BUSY if status not in (429, 529)])
    def test_they_count_as_replays(self, status: int) -> None:
        play = Playbook() >> answers(status, after=5.1) >> ends()
        play << again("replay", delay=0, of=4, failure=Failure.GATEWAY_GAVE_UP)
        assert (play.report.replays, play.report.retries) == (1, 0)
        assert (play.attempts[0].billed, play.attempts[0].phase) == ("unknown", Phase.HEADERS)

    @pytest.mark.parametrize("status", [504, 524])
    def test_a_gateway_that_gave_up_waiting_is_never_prompt(self, status: int) -> None:
        play = Playbook() >> answers(status, after=0.1) >> ends()
        play << again("replay", delay=0, of=4, failure=Failure.GATEWAY_GAVE_UP)
        assert play.attempts[0].billed == "unknown"

    @pytest.mark.parametrize("status", [429, 529])
    def test_too_many_requests_are_never_late(self, status: int) -> None:
        play = Playbook() >> answers(status, after=300) >> ends() << again("retry", delay=0.5, failure=Failure.BUSY)
        assert play.attempts[0].billed == "no"

    @pytest.mark.parametrize("status", [408, 500, 503])
    def test_what_names_a_wait_is_never_late(self, status: int) -> None:
        play = Playbook() >> answers(status, after=300, retry_after="2") >> ends()
        play << again("retry", delay=2, failure=Failure.BUSY)

    def test_five_seconds_are_not_late(self) -> None:
        Playbook() >> answers(503, after=5) >> ends() << again("retry", delay=0.5, failure=Failure.BUSY)

    def test_it_is_the_answer_that_is_late_and_not_its_body(self) -> None:
        Playbook() >> answers(503, after=4) >> ends(after=4) << again("retry", delay=0.5, failure=Failure.BUSY)

    def test_late_after_the_start_of_its_own_attempt(self) -> None:
        play = Playbook() >> answers(503, after=4) >> ends() << again("retry", delay=0.5)
        play >> answers(503, after=4) >> ends() << again("retry", delay=1, failure=Failure.BUSY)

    def test_three_times_and_then_handed_on(self) -> None:
        play = Playbook()
        for delay in (0, 0.5, 1):
            play >> answers(504, after=60) >> ends() << again("replay", delay=delay)
        play >> answers(504, after=60) << gives_head(504)

    def test_handed_on_it_may_have_been_billed(self) -> None:
        play = Playbook(replays=0) >> answers(504, after=60) << gives_head(504) >> ends() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == ("gateway_gave_up", "unknown")


class TestRefusals:
    """Row 6: exhausted quotas and every other status are handed on at once."""

    @pytest.mark.parametrize("status", REFUSED)
    def test_any_other_status(self, status: int) -> None:
        play = Playbook() >> answers(status, "application/json") << gives_head(status)
        play >> brings(b'{"error"') << Give(b'{"error"') >> brings(b": {}}") << Give(b": {}}") >> ends() << EndTurn()
        [attempt] = play.attempts
        assert (attempt.status, attempt.failure, attempt.billed) == (status, "refused", "no")
        assert play.report.possibly_billed == 0

    @pytest.mark.parametrize("status", [429, 503])
    def test_an_exhausted_quota(self, status: int) -> None:
        play = Playbook() >> answers(status, "application/json", retry_after="1") >> brings(QUOTA) >> ends()
        play << speaks(QUOTA, status) << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == ("refused", "no")

    @pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
    def test_redirects_are_not_followed(self, status: int) -> None:
        play = Playbook() >> answers(status, location="https://elsewhere/") << gives_head(status) >> ends() << EndTurn()
        assert play.head is not None
        assert play.head.fields["location"] == "https://elsewhere/"

    def test_a_body_that_is_cut_is_no_whole_one(self) -> None:
        play = Playbook() >> answers(400) << gives_head(400) >> brings(b"{") << Give(b"{")
        play >> is_lost(Failure.RESET) << fails(StreamCut, "after output")

    def test_nor_is_one_that_was_held(self) -> None:
        play = Playbook() >> answers(429) >> brings(QUOTA) >> is_lost(Failure.DEADLINE, after=5)
        play << speaks(QUOTA, 429) << fails(StreamCut, "the error's body did not come within 5 s")


class TestTransientErrorInTheStream:
    """Row 7."""

    def test_before_output_it_is_replayed_after_a_wait(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE + OVERLOADED)
        play << again("replay", delay=0.5, failure=Failure.TRANSIENT_ERROR)
        play >> answers() >> brings(OVERLOADED) << again("replay", delay=1)
        play >> answers() >> brings(OVERLOADED) << again("replay", delay=2)
        finish(play)
        assert [attempt.billed for attempt in play.attempts] == ["unknown"] * 3 + ["yes"]

    def test_when_the_budget_is_used_up_it_is_handed_on_as_it_came(self) -> None:
        play = Playbook(replays=1) >> answers() >> brings(OVERLOADED) << again("replay", delay=0.5)
        play >> answers() >> brings(ROLE + OVERLOADED + DONE) << speaks(ROLE + OVERLOADED + DONE)
        play >> ends() << EndTurn()
        assert (play.attempts[1].failure, play.attempts[1].billed) == ("transient_error", "unknown")

    def test_a_call_that_acts_is_not_replayed(self) -> None:
        Playbook(acts=True) >> answers() >> brings(OVERLOADED) << speaks(OVERLOADED) >> ends() << EndTurn()

    def test_after_output_it_is_handed_on(self) -> None:
        play = spoken() >> brings(OVERLOADED, after=1) << Give(OVERLOADED) << reads(until=1 + USAGE_WAIT)
        play >> ends() << EndTurn()
        assert play.attempts[0].failure == "transient_error"

    def test_and_is_the_ending(self) -> None:
        spoken() >> brings(OVERLOADED) << Give(OVERLOADED) >> is_lost(Failure.RESET) << Drop() << EndTurn()

    def test_after_settling_it_costs_nothing(self) -> None:
        play = settled() >> brings(OVERLOADED) << Give(OVERLOADED) >> ends() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == (None, "yes")


class TestPermanentErrorInTheStream:
    """Row 8."""

    def test_before_output_it_is_handed_on_as_it_came(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> brings(INVALID + DONE) << speaks(ROLE + INVALID + DONE)
        play >> ends() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == ("permanent_error", "unknown")

    def test_after_output_too(self) -> None:
        play = spoken() >> brings(INVALID) << Give(INVALID) >> brings(DONE) << Give(DONE) >> ends() << EndTurn()
        assert play.attempts[0].failure == "permanent_error"


class TestBrokenEvents:
    """Row 9: malformed, or over the cap."""

    def test_malformed_before_output_is_an_error_without_replay(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE + BROKEN)
        play << fails(MalformedStream, "the stream is broken: malformed event", retryable=False)
        assert play.attempts[0].phase is Phase.PRELUDE

    def test_malformed_after_output_goes_through(self) -> None:
        play = spoken() >> brings(BROKEN) << Give(BROKEN) >> brings(STOP + DONE) << Give(STOP + DONE)
        play >> ends() << EndTurn()

    def test_over_the_cap_before_output_is_an_error_without_replay(self) -> None:
        play = Playbook(max_event=300) >> answers() >> brings(text("x" * 300))
        play << fails(MalformedStream, "event over the size cap (an event of the stream grew over 300 bytes)")

    def test_over_the_cap_after_output_goes_through(self) -> None:
        play = spoken(max_event=300)
        play >> brings(text("x" * 300)[:350]) << Give(text("x" * 300)[:350])
        play >> brings(text("x" * 300)[350:]) << Give(text("x" * 300)[350:]) >> brings(STOP) << Give(STOP)
        play >> ends() << EndTurn()

    def test_a_prelude_over_its_cap_counts_as_output(self) -> None:
        play = Playbook(max_prelude=500) >> answers() >> brings(COMMENT * 50) << speaks(COMMENT * 50)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "after output")


class TestOtherContent:
    """Row 10: handed on unread, unless it begins as an event stream begins."""

    @pytest.mark.parametrize("content_type", ["text/html", "application/json", ""])
    @pytest.mark.parametrize("body", [b"<html>", b'{"error": 1}', b"Data: x", b"\xef\xbb\xbf<html>"])
    def test_instead_of_a_stream(self, content_type: str, body: bytes) -> None:
        play = Playbook() >> answers(200, content_type) << reads(until=900) >> brings(body) << speaks(body)
        play >> ends() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == ("other_content", "unknown")

    @pytest.mark.parametrize(
        "content_type", ["text/plain; charset=utf-8", "application/json", "", "x, text/event-stream"]
    )
    @pytest.mark.parametrize(
        "start", [b"", b": hello\n\n", b"\n\n", b"\xef\xbb\xbf", b"id: 1\n", b"event: x\n", b"retry: 1\n"]
    )
    def test_a_stream_by_another_name_is_one(self, content_type: str, start: bytes) -> None:
        play = Playbook() >> answers(200, content_type)
        for byte in start + ROLE:
            play >> brings(bytes([byte]))
        play << reads(until=900) >> is_lost(Failure.RESET) << again("replay", delay=0)
        play >> answers(200, content_type) >> brings(start + ANSWER) << speaks(start + ANSWER) >> ends() << EndTurn()
        assert play.report.attempts[-1].failure is None

    @pytest.mark.parametrize("body", [b"", b"\n", b"dat", b"\xef\xbb"])
    @pytest.mark.parametrize("content_type", ["", "application/json"])
    def test_it_ends_before_that_can_be_told(self, content_type: str, body: bytes) -> None:
        """Nothing at all is no answer: handed on, it would be an empty one."""
        play = Playbook() >> answers(200, content_type) >> brings(body) >> ends()
        finish(play << again("replay", delay=0, failure=Failure.UNFINISHED))

    def test_nothing_instead_of_a_document_is_handed_on(self) -> None:
        play = Playbook(streaming=False) >> answers(200, "text/plain") >> ends() << gives_head() << EndTurn()
        assert play.attempts[0].failure == "other_content"

    def test_nothing_but_blank_lines_is_no_stream(self) -> None:
        play = Playbook() >> answers(200, "text/plain") >> brings(b"\n" * 4000) << reads(until=900)
        play >> brings(b"\n" * 200) << speaks(b"\n" * 4200) >> ends() << EndTurn()

    def test_cut_before_it_is_known_what_it_is(self) -> None:
        finish(Playbook() >> answers(200, "") >> brings(b"da") >> is_lost(Failure.RESET) << again("replay", delay=0))

    def test_a_stream_instead_of_a_document(self) -> None:
        play = Playbook(streaming=False) >> answers() >> brings(ROLE) << speaks(ROLE) >> ends() << EndTurn()
        assert play.attempts[0].failure == "other_content"

    def test_a_document_by_another_name_is_held_until_it_is_whole(self) -> None:
        play = Playbook(streaming=False) >> answers(200, "text/plain") >> brings(b'{"a": ') >> ends()
        play << again("replay", delay=0, failure=Failure.TRUNCATED)
        (
            play
            >> answers(200, "")
            >> brings(b'{"a": 1}')
            << reads(until=900)
            >> ends()
            << speaks(b'{"a": 1}')
            << EndTurn()
        )

    def test_a_page_instead_of_a_document(self) -> None:
        play = Playbook(streaming=False) >> answers(200, "text/html") >> brings(b"<html>") << speaks(b"<html>")
        play >> ends() << EndTurn()

    @pytest.mark.parametrize("status", [101, 204, 205])
    def test_no_content_at_all(self, status: int) -> None:
        Playbook() >> answers(status, "") << gives_head(status) >> ends() << EndTurn()

    def test_cut_it_is_not_whole(self) -> None:
        play = Playbook() >> answers(200, "text/html") >> brings(b"<html>") << speaks(b"<html>")
        play >> is_lost(Failure.TRUNCATED) << fails(StreamCut, "after output")

    def test_an_encoding_that_nobody_asked_for_and_that_cannot_be_read(self) -> None:
        play = Playbook() >> answers(content_encoding="compress") << fails(UnexpectedResponse, "compress")
        assert play.attempts[0].failure == "unsupported_encoding"

    @pytest.mark.parametrize("encoding", ["none", "utf-8", "binary", "identity, none"])
    def test_a_name_of_no_encoding_is_handed_on_as_it_came(self, encoding: str) -> None:
        play = (
            Playbook() >> answers(content_encoding=encoding) >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()
        )
        assert play.head is not None
        assert play.head.fields["content-encoding"] == encoding
        Playbook() >> answers(content_encoding=encoding) >> brings(ROLE) >> ends() << again("replay", delay=0)

    def test_an_encoding_that_can_be_read_is_not_seen(self) -> None:
        play = Playbook() >> answers(content_encoding="gzip", content_length="5") >> brings(gzip.compress(ANSWER))
        play << speaks(ANSWER) >> ends() << EndTurn()
        assert play.head is not None
        assert play.head.fields == {"content-type": "text/event-stream"}


class TestNoOutputInTime:
    """Row 11."""

    def test_no_headers(self) -> None:
        play = Playbook() << sends(1, until=900)
        (
            play
            >> is_lost(Failure.DEADLINE, after=900)
            << fails(FirstOutputTimeout, "no output within 900 s", retryable=True)
        )
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.HEADERS, "unknown")

    def test_no_output_and_comments_and_pings_do_not_feed_it(self) -> None:
        play = Playbook(first_output_timeout=30) >> answers(after=10) >> brings(COMMENT, after=10) << reads(until=30)
        play >> brings(ROLE, after=9) << reads(until=30)
        (
            play
            >> is_lost(Failure.DEADLINE, after=1)
            << fails(FirstOutputTimeout, "no output within 30 s; raise the limit")
        )

    def test_not_even_a_connection(self) -> None:
        Playbook(first_output_timeout=5) >> is_lost(Failure.DEADLINE, after=5, sent=False) << fails(FirstOutputTimeout)

    def test_each_attempt_has_its_own(self) -> None:
        play = Playbook() >> answers() >> is_lost(Failure.RESET, after=300) << again("replay", delay=0)
        play >> answers() << reads(until=300 + 900)


class TestTheCallerLeaves:
    """Row 12: it ends at once, never a retry or a replay."""

    def test_before_the_request_is_sent(self) -> None:
        play = Playbook() >> is_cancelled(sent=False) << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].phase) == ("cancelled", Phase.CONNECT)
        assert play.attempts[0].billed == "no"

    def test_while_waiting_for_headers(self) -> None:
        play = Playbook() >> is_cancelled() << EndTurn()
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.HEADERS, "unknown")

    def test_in_the_prelude(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> is_cancelled(after=3) << EndTurn()
        assert (play.attempts[0].phase, play.attempts[0].elapsed) == (Phase.PRELUDE, 3)

    def test_in_the_output(self) -> None:
        assert (spoken() >> is_cancelled() << EndTurn()).attempts[0].failure == "cancelled"

    def test_after_settling(self) -> None:
        assert (settled() >> is_cancelled() << EndTurn()).attempts[0].failure == "cancelled"

    def test_after_the_terminator_nothing_was_left_to_cancel(self) -> None:
        play = settled() >> brings(DONE) << Give(DONE) >> is_cancelled() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].billed) == (None, "yes")

    def test_in_a_refusal_that_is_not_decided_yet(self) -> None:
        play = Playbook() >> answers(429) >> is_cancelled() << EndTurn()
        assert (play.attempts[0].status, play.attempts[0].failure) == (429, "cancelled")

    def test_after_an_error_that_was_handed_on_the_error_is_what_is_told(self) -> None:
        play = Playbook() >> answers(400) << gives_head(400) >> is_cancelled() << EndTurn()
        assert play.attempts[0].failure == "refused"

    def test_before_another_attempt_has_begun(self) -> None:
        play = Playbook() >> answers(503) >> ends() >> is_cancelled(sent=False) << EndTurn()
        assert [attempt.failure for attempt in play.attempts] == ["busy", "cancelled"]
        assert play.attempts[1].elapsed == 0

    def test_what_was_not_taken_yet_is_not_handed_on_any_more(self) -> None:
        Playbook() >> answers() >> brings(ANSWER) >> is_cancelled() << EndTurn()

    def test_after_the_end_it_changes_nothing(self) -> None:
        play = settled() >> ends() << EndTurn() >> is_cancelled() << EndTurn()
        assert len(play.attempts) == 1
        assert play.attempts[0].failure is None


class TestTheCallersOwnTimeouts:
    """Raised when they expire, and never replayed."""

    def expire(self, play: Playbook, *, sent: bool = True) -> None:
        (
            play
            >> is_lost(Failure.CALLER_TIMEOUT, after=5, sent=sent, detail="read")
            << fails(CallerTimeout, "read timeout")
        )

    def test_before_the_request_is_sent(self) -> None:
        self.expire(Playbook(), sent=False)

    def test_while_waiting_for_headers(self) -> None:
        self.expire(Playbook())

    def test_in_the_prelude(self) -> None:
        self.expire(Playbook() >> answers() >> brings(ROLE))

    def test_in_the_output(self) -> None:
        self.expire(spoken())

    def test_in_a_refusal(self) -> None:
        self.expire(Playbook() >> answers(503) >> brings(b"x"))

    def test_after_settling_nothing_is_lost(self) -> None:
        settled() >> is_lost(Failure.CALLER_TIMEOUT, after=5, detail="read") << Drop() << EndTurn()


class TestEndings:
    @pytest.mark.parametrize("said", [b"", COMMENT, ROLE, COMMENT + ROLE])
    def test_a_clean_end_before_output_is_a_cut_and_is_replayed(self, said: bytes) -> None:
        play = Playbook() >> answers() >> brings(said) >> ends(silent=60)
        finish(play << again("replay", delay=0, failure=Failure.UNFINISHED))
        assert play.attempts[0].silent == 60

    def test_a_clean_end_after_output_is_a_cut(self) -> None:
        spoken() >> ends() << fails(StreamCut, "the stream ended without saying how the answer ended")

    def test_a_terminator_without_a_finish_reason_is_a_cut_and_is_not_handed_on(self) -> None:
        play = spoken() >> brings(text("more") + DONE) << Give(text("more")) << fails(StreamCut)
        assert play.attempts[0].failure == "unfinished"

    def test_before_output_it_is_replayed(self) -> None:
        Playbook() >> answers() >> brings(ROLE + DONE) << again("replay", delay=0, failure=Failure.UNFINISHED)

    def test_a_missing_terminator_is_none_of_our_business(self) -> None:
        play = settled() >> ends() << EndTurn()
        assert play.attempts[0].failure is None

    def test_twenty_silent_seconds_after_settling_end_the_stream(self) -> None:
        play = settled() << reads(until=20) >> is_lost(Failure.DEADLINE, after=20) << Drop() << EndTurn()
        assert (play.attempts[0].failure, play.attempts[0].phase) == ("unproven_end", Phase.SETTLED)
        assert play.report.unproven_end

    def test_two_after_usage(self) -> None:
        play = settled() >> brings(USAGE, after=19) << Give(USAGE) << reads(until=19 + 2)
        play >> is_lost(Failure.DEADLINE, after=2) << Drop() << EndTurn()
        assert play.attempts[0].failure == "unproven_end"

    def test_usage_beside_a_choice_is_not_the_last_event(self) -> None:
        beside = chunk(choices=[{"index": 0, "delta": {}}], usage={"prompt_tokens": 1})
        settled() >> brings(beside, after=4) << Give(beside) << reads(until=20)

    @pytest.mark.parametrize("keepalive", [COMMENT, b"event: ping\ndata: {}\n\n", b"data: : ping\n\n", delta()])
    def test_what_says_nothing_extends_no_wait(self, keepalive: bytes) -> None:
        play = settled()
        for _ in range(5):
            play >> brings(keepalive, after=3) << Give(keepalive) << reads(until=20)
        play >> brings(DONE, after=1) << Give(DONE) << reads(until=16 + LINGER)
        play >> brings(keepalive, after=0.25) << Give(keepalive) << reads(until=16 + LINGER)

    def test_what_says_something_starts_the_wait_anew(self) -> None:
        cited = b'data: {"citations": ["x"]}\n\n'
        settled() >> brings(cited, after=19) << Give(cited) << reads(until=19 + 20)

    def test_the_end_of_the_body_is_not_waited_for_for_long(self) -> None:
        play = settled() >> brings(DONE) << Give(DONE) << reads(until=LINGER)
        play >> is_lost(Failure.DEADLINE, after=LINGER) << Drop() << EndTurn()
        assert not play.report.unproven_end


class TestFinishesThatProveNothing:
    """Servers that put a finish on every chunk, or an empty finish first."""

    def test_output_behind_a_finish_takes_the_settling_back(self) -> None:
        more = text("more")
        play = settled() >> brings(more, after=19) << Give(more) << reads(until=None)
        play >> is_lost(Failure.RESET, after=99) << fails(StreamCut, "after output")

    def test_then_only_the_terminator_proves_the_end(self) -> None:
        again_ = text("more") + STOP
        play = settled() >> brings(again_) << Give(again_) << reads(until=None) >> ends()
        play << fails(StreamCut, "without saying how the answer ended")
        settled() >> brings(again_ + DONE) << Give(again_ + DONE) >> ends() << EndTurn()

    def test_a_finish_in_the_first_output_proves_nothing_yet(self) -> None:
        only = delta("stop", content="All")
        play = Playbook() >> answers() >> brings(only) << speaks(only) << reads(until=None)
        play >> brings(USAGE, after=99) << Give(USAGE) << reads(until=None)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "after output")

    @pytest.mark.parametrize("rest", [b"", USAGE, DONE, USAGE + DONE])
    def test_the_terminator_or_the_clean_end_does(self, rest: bytes) -> None:
        only = delta("stop", content="All")
        play = Playbook() >> answers() >> brings(only + rest) << speaks(only + rest) >> ends() << EndTurn()
        assert play.attempts[0].failure is None

    def test_a_finish_before_any_output_is_held(self) -> None:
        play = Playbook() >> answers() >> brings(STOP) << reads(until=900)
        play >> brings(text("late"), after=25) << speaks(STOP + text("late")) << reads(until=None)
        play >> ends() << fails(StreamCut)


class TestAcceptDone:
    def test_the_error_names_the_switch(self) -> None:
        spoken() >> brings(DONE) << fails(StreamCut, "Policy.accept_done, --accept-done, or accept_done = true")

    def test_with_it_the_terminator_proves_the_end(self) -> None:
        play = spoken(accept_done=True) >> brings(DONE) << Give(DONE) << reads(until=LINGER) >> ends() << EndTurn()
        assert play.attempts[0].failure is None

    def test_a_clean_end_alone_still_proves_nothing(self) -> None:
        spoken(accept_done=True) >> ends() << fails(StreamCut)


class TestTheLastEventWithoutItsBlankLine:
    def test_an_error(self) -> None:
        play = Playbook() >> answers() >> brings(INVALID[:-1]) >> ends() << speaks(INVALID[:-1]) << EndTurn()
        assert play.attempts[0].failure == "permanent_error"

    def test_a_transient_error_is_replayed(self) -> None:
        finish(Playbook() >> answers() >> brings(OVERLOADED[:-2]) >> ends() << again("replay", delay=0.5))

    def test_a_bare_error(self) -> None:
        bare = b'{"error": {"message": "context too long", "code": 400}}'
        Playbook() >> answers() >> brings(bare) >> ends() << speaks(bare) << EndTurn()

    @pytest.mark.parametrize("missing", [1, 2])
    def test_a_finish(self, missing: int) -> None:
        spoken() >> brings(STOP[:-missing]) >> ends() << Give(STOP[:-missing]) << EndTurn()

    def test_output_in_it_is_lost_on_readers_and_so_a_cut(self) -> None:
        last = delta("stop", content="end")[:-1]
        spoken() >> brings(last) >> ends() << fails(StreamCut)


class TestDelaysThatTheBodyNames:
    BUSY = b'{"error": {"message": "Rate limit reached. Please try again in 3s.", "type": "rate_limit_error"}}'

    def test_in_a_refusal(self) -> None:
        Playbook() >> answers(429) >> brings(self.BUSY) >> ends() << again("retry", delay=3)

    def test_the_header_takes_precedence(self) -> None:
        Playbook() >> answers(429, retry_after="7") >> brings(self.BUSY) >> ends() << again("retry", delay=7)

    def test_too_long_a_delay_is_handed_on_at_once(self) -> None:
        late = self.BUSY.replace(b"3s", b"7m12s")
        play = Playbook() >> answers(429) >> brings(late) >> ends() << speaks(late, 429) << EndTurn()
        assert len(play.attempts) == 1

    def test_in_the_stream(self) -> None:
        inside = b"data: " + self.BUSY + b"\n\n"
        finish(Playbook() >> answers() >> brings(inside) << again("replay", delay=3))
        late = inside.replace(b"3s", b"2 minutes")
        Playbook() >> answers() >> brings(late) << speaks(late) >> ends() << EndTurn()


class TestMissingBlankLines:
    def test_each_line_is_an_event(self) -> None:
        lines = (ROLE + text("Hi") + text("!") + STOP + DONE).replace(b"\n\n", b"\n")
        play = Playbook() >> answers() >> brings(lines) << speaks(lines) >> ends() << EndTurn()
        assert (play.attempts[0].phase, play.attempts[0].failure) == (Phase.COMPLETE, None)

    def test_before_output_it_is_replayed(self) -> None:
        finish(
            Playbook() >> answers() >> brings(ROLE.replace(b"\n\n", b"\n") * 2) >> ends() << again("replay", delay=0)
        )

    def test_without_a_proven_ending_it_is_a_cut(self) -> None:
        lines = (ROLE + text("Hi") + text("!")).replace(b"\n\n", b"\n")
        Playbook() >> answers() >> brings(lines) << speaks(lines) >> ends() << fails(StreamCut)


class TestDocuments:
    """A call that does not stream is held until its body is whole."""

    BODY = b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}'

    def asked(self) -> Playbook:
        return Playbook(streaming=False) >> answers(200, "application/json; charset=utf-8")

    def test_handed_on_when_whole(self) -> None:
        play = self.asked() >> brings(self.BODY[:9]) >> brings(self.BODY[9:], after=60) << reads(until=900)
        play >> ends() << speaks(self.BODY) << EndTurn()
        assert (play.attempts[0].phase, play.attempts[0].billed) == (Phase.COMPLETE, "yes")

    @pytest.mark.parametrize("failure", LOST)
    def test_cut_it_is_replayed(self, failure: Failure) -> None:
        play = self.asked() >> brings(self.BODY[:9]) >> is_lost(failure) << again("replay", delay=0)
        play >> answers(200, "application/json") >> brings(self.BODY) >> ends() << speaks(self.BODY) << EndTurn()

    @pytest.mark.parametrize("size", [0, 9, 30])
    def test_a_clean_end_in_the_middle_is_a_cut(self, size: int) -> None:
        play = self.asked() >> brings(self.BODY[:size]) >> ends() << again("replay", delay=0, failure=Failure.TRUNCATED)
        assert play.attempts[0].detail == "the JSON of the answer is not whole"

    def test_refusals_are_the_same(self) -> None:
        Playbook(streaming=False) >> answers(429) >> ends() << again("retry", delay=0.5)

    def test_too_long_to_be_held(self) -> None:
        play = Playbook(streaming=False, max_hold=10) >> answers(200, "application/json") >> brings(self.BODY)
        play << speaks(self.BODY) << reads(until=None) >> is_lost(Failure.RESET) << fails(StreamCut)


class TestTheBudget:
    def cut(self, play: Playbook, after: float = 60) -> Playbook:
        return play >> answers() >> brings(ROLE) >> is_lost(Failure.RESET, after=after)

    def test_three_replays_the_first_at_once(self) -> None:
        play = Playbook()
        for delay in (0, 0.5, 1):
            self.cut(play) << again("replay", delay=delay, of=4)
        self.cut(play) << fails(StreamCut, "before any output: connection reset (3 replays used up; 4 attempts in all)")
        assert (play.report.replays, play.report.possibly_billed) == (3, 4)
        assert play.error is not None
        assert play.error.retryable

    def test_one_counter_whatever_was_lost(self) -> None:
        play = Playbook()
        self.cut(play) << again("replay", delay=0)
        play >> answers(504, after=60) >> ends() << again("replay", delay=0.5)
        play >> answers() >> brings(OVERLOADED) << again("replay", delay=1)
        play >> is_lost(Failure.DEAD_PATH) << fails(StreamCut, "3 replays used up")

    def test_only_the_first_replay_goes_at_once(self) -> None:
        play = Playbook() >> answers() >> brings(OVERLOADED) << again("replay", delay=0.5)
        self.cut(play) << again("replay", delay=1)

    def test_retries_are_counted_for_each_attempt_anew(self) -> None:
        play = Playbook(retries=1) >> answers(429) >> ends() << again("retry", delay=0.5, attempt=1, of=2)
        self.cut(play) << again("replay", delay=0, attempt=2, of=5)
        play >> answers(429) >> ends() << again("retry", delay=1, attempt=3, of=4)
        play >> answers(429) << gives_head(429)
        assert (play.report.retries, play.report.replays, play.report.lost) == (2, 1, 3)

    def test_waits_are_jittered(self) -> None:
        Playbook(jitter=0.5) >> answers(429) >> ends() << again("retry", delay=0.375)
        Playbook(jitter=0.5) >> answers(429, retry_after="7") >> ends() << again("retry", delay=7)

    def test_after_a_quarter_of_an_hour_no_attempt_starts_any_more(self) -> None:
        play = self.cut(Playbook(), after=900) << again("replay", delay=0)
        self.cut(play, after=1) << fails(
            StreamCut, "gave up after 900 s, the limit of Policy.give_up_after and --give-up-after; 2"
        )

    def test_the_last_one_starts_at_the_limit(self) -> None:
        play = self.cut(Playbook(), after=899.8) << again("replay", delay=0)
        play = self.cut(play, after=0) << again("replay", delay=pytest.approx(0.2))
        self.cut(play) << fails(StreamCut, "gave up after 900 s")

    def test_a_turn_that_was_silent_for_as_long_as_is_allowed_is_replayed(self) -> None:
        play = Playbook() >> answers() >> is_lost(Failure.IDLE_TIMEOUT, after=600) << again("replay", delay=0)
        assert play.attempts[0].detail == "nothing for 600 s, the limit of Policy.idle_timeout and --idle"
        assert not play.report.advice

    def test_but_one_that_runs_may_go_on(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> brings(text("Hi"), after=899) << speaks(ROLE + text("Hi"))
        play >> brings(STOP, after=9999) << Give(STOP) >> ends() << EndTurn()

    def test_the_wait_before_it_counts(self) -> None:
        play = Playbook(give_up_after=600) >> answers(429, after=25, retry_after="60") >> ends()
        play << again("retry", delay=60)
        for _ in range(8):
            play >> answers(429, retry_after="60") >> ends() << again("retry", delay=60)
        play >> answers(429, retry_after="60") << gives_head(429)
        assert play.elapsed == 565

    def test_none_allowed(self) -> None:
        self.cut(Playbook(replays=0)) << fails(StreamCut, "connection reset (no replays allowed)")
        Playbook(retries=0) >> is_lost(Failure.RESET, sent=False) << fails(Unreachable, "(no retries allowed)")
        Playbook(retries=0) >> answers(429) << gives_head(429)

    def test_a_model_of_ones_own_behind_a_proxy_gets_more_replays(self) -> None:
        path = RouteRecord(host="127.0.0.1:8080", proxy="http://127.0.0.1:10808", http_version="HTTP/1.1")
        play = Playbook()
        for delay in (0, 0.5, 1, 2, 4, 8, 15, 15):
            play >> is_lost(Failure.RESET, after=3, route=path) << again("replay", delay=delay, of=9)
        play >> is_lost(Failure.RESET, after=3, route=path) << fails(StreamCut, "8 replays used up; 9 attempts in all")

    def test_an_sdks_retry_gets_one_attempt(self) -> None:
        self.cut(Playbook(single_attempt=True)) << fails(StreamCut)
        Playbook(single_attempt=True) >> is_unreachable() << fails(Unreachable)
        Playbook(single_attempt=True) >> answers(429) << gives_head(429)

    def test_a_call_that_acts_on_the_world_is_never_replayed_once_sent(self) -> None:
        self.cut(Playbook(acts=True)) << fails(StreamCut, "(not replayed: the call acts on the world)")
        Playbook(acts=True) >> is_lost(Failure.RESET) << fails(StreamCut)
        Playbook(acts=True) >> answers(504, after=60) << gives_head(504)

    def test_but_may_be_retried_where_nothing_was_done(self) -> None:
        Playbook(acts=True) >> is_lost(Failure.RESET, sent=False) << again("retry", delay=0.5)
        Playbook(acts=True) >> answers(429) >> ends() << again("retry", delay=0.5)

    def test_and_replayed_if_the_policy_says_so(self) -> None:
        self.cut(Playbook(acts=True, replay_side_effects=True)) << again("replay", delay=0)


def pinged_every(seconds: float, **fields: Any) -> RouteRecord:
    """A path over HTTP/2 with PING at this interval."""
    return RouteRecord(host="api.test", secure=True, http_version="HTTP/2", ping=seconds, **fields)


class TestPing:
    """What a cut teaches of it: a third of the silence, once, for this path."""

    def test_a_silence_that_ping_came_too_late_for_lowers_its_interval(self) -> None:
        play = Playbook() >> is_lost(Failure.CLOSED, after=9, route=pinged_every(10))
        play << again("replay", delay=0, ping=3, advice="cut after 9 s: pinging every 3 s from now on")
        assert finish(play).attempts[0].lowered_ping == 3

    def test_but_never_under_a_second(self) -> None:
        play = Playbook() >> answers(route=pinged_every(10)) >> is_lost(Failure.RESET, after=1.5)
        play << again("replay", delay=0, ping=1)

    @pytest.mark.parametrize(
        ("failure", "silent", "path"),
        [
            (Failure.RESET, 20, pinged_every(10)),
            (Failure.STREAM_RESET, 3, pinged_every(10)),  # by whoever reads HTTP: PING does not reach it
            (Failure.UNFINISHED, 3, pinged_every(10)),
            (Failure.RESET, 0.5, pinged_every(10)),
            (Failure.RESET, 3, pinged_every(0)),
            (Failure.RESET, 3, pinged_every(1)),
            (Failure.RESET, 3, pinged_every(5, ping_learned=True)),
            (Failure.RESET, 3, pinged_every(20, ping_refused=True)),
            (Failure.RESET, 3, RouteRecord(http_version="HTTP/1.1")),
            (Failure.IDLE_TIMEOUT, 3, pinged_every(10)),
            (Failure.DEAD_PATH, 3, pinged_every(10)),
            (Failure.TOO_MANY_PINGS, 3, pinged_every(10)),
        ],
        ids=[
            "often enough", "stream reset", "end of stream", "no silence", "--ping 0", "as often as may be",
            "lowered before", "refused before", "HTTP/1.1", "our own limit", "dead path", "complaint",
        ],
    )  # fmt: skip
    def test_nothing_else_does(self, failure: Failure, silent: float, path: RouteRecord) -> None:
        play = Playbook() >> is_lost(failure, after=silent, route=path) << again("replay", delay=0, advice="")
        assert finish(play).attempts[0].lowered_ping is None

    def test_a_cut_after_output_teaches_the_turns_to_come(self) -> None:
        play = spoken() >> is_lost(Failure.RESET, after=6, route=pinged_every(10))
        play << LowerPing(2.0) << fails(StreamCut)

    def test_so_does_one_that_is_not_replayed(self) -> None:
        play = Playbook(replays=0) >> is_lost(Failure.RESET, after=6, route=pinged_every(10))
        play << LowerPing(2.0) << fails(StreamCut)


class TestGatewayTimeouts:
    def test_are_cuts_at_their_time(self) -> None:
        play = Playbook()
        for delay in (0, 0.5, 1):
            play >> answers(504, after=61, route=RouteRecord(host="api.test", waited=60.0)) >> ends()
            play << again("replay", delay=delay)
        play >> answers(504, after=61, route=RouteRecord(host="api.test", waited=60.0)) << gives_head(504)
        play >> ends() << EndTurn()
        assert [attempt.silent for attempt in play.attempts] == [60] * 4
        assert len(play.report.silent_cuts) == 4
        assert "a gateway answers HTTP 504 after about 60 s" in play.report.advice


class TestWhatIsTold:
    def test_three_similar_cuts_bring_advice(self) -> None:
        play = Playbook()
        for delay, advice in ((0, ""), (0.5, ""), (1, "cuts idle connections after about 60 s")):
            play >> answers(http_version="HTTP/1.1") >> is_lost(Failure.RESET, after=60)
            play << again("replay", delay=delay, advice=advice)
            assert bool(play.report.advice) is bool(advice)
        play >> answers(http_version="HTTP/1.1") >> is_lost(Failure.RESET, after=60)
        play << fails(StreamCut, "4 attempts in all); something on the way cuts idle connections after about 60 s")

    def test_one_record_for_each_attempt_in_order(self) -> None:
        play = Playbook() >> is_unreachable() << again("retry", delay=0.5)
        play >> answers(503, after=1, http_version="HTTP/1.1") >> ends() << again("retry", delay=1)
        play >> answers(after=2) >> brings(ROLE) >> is_lost(Failure.STREAM_RESET, after=3) << again("replay", delay=0)
        finish(play)
        facts = [(a.number, a.phase, a.failure, a.status, a.elapsed, a.http_version, a.billed) for a in play.attempts]
        assert facts == [
            (1, Phase.CONNECT, "connection_refused", None, 0, "", "no"),
            (2, Phase.HEADERS, "busy", 503, 1, "HTTP/1.1", "no"),
            (3, Phase.PRELUDE, "stream_reset", 200, 5, "HTTP/2", "unknown"),
            (4, Phase.COMPLETE, None, 200, 0, "HTTP/2", "yes"),
        ]

    @pytest.mark.parametrize(
        "play",
        [
            lambda: spoken() >> brings(text("secret") + DONE),
            lambda: Playbook() >> answers() >> brings(text("secret")[:90] + b"\n\n"),
            lambda: Playbook(max_event=9) >> answers() >> brings(text("secret")),
            lambda: Playbook(replays=0) >> answers() >> brings(ROLE) >> is_lost(Failure.RESET),
            lambda: Playbook() >> answers(503) >> brings(b"secret") >> ends(),
            lambda: Playbook() >> answers() >> brings(OVERLOADED + text("secret")),
        ],
    )
    def test_messages_contain_nothing_that_the_model_or_the_provider_said(self, play: Callable[[], Playbook]) -> None:
        stage = play()
        messages = [action.error for action in stage.rest() if isinstance(action, Fail)]
        assert messages or stage.attempts
        said = " ".join([*map(str, messages), *map(str, stage.attempts)])
        assert "secret" not in said
        assert "the provider's words" not in said


class TestWhenItHappened:
    """The moments of an attempt, in seconds from its own start; and that start, from the turn's."""

    def moments(self, play: Playbook) -> list[tuple[float, float | None, float | None, float]]:
        return [(a.after, a.headers_after, a.output_after, a.elapsed) for a in play.attempts]

    def test_of_an_answer(self) -> None:
        play = Playbook() >> answers(after=2) >> brings(COMMENT + ROLE, after=3) >> brings(text("Hi"), after=4)
        play << speaks(COMMENT + ROLE + text("Hi")) >> brings(text("!") + STOP, after=5) << Give(text("!") + STOP)
        play >> ends(after=1) << EndTurn()
        assert self.moments(play) == [(0, 2, 9, 15)]

    def test_of_every_attempt_from_its_own_start(self) -> None:
        play = Playbook() >> is_unreachable(after=1) << again("retry", delay=0.5)
        play >> answers(503, after=2, retry_after="7") >> brings(b"x", after=1) >> ends() << again("retry", delay=7)
        (
            play
            >> answers(after=4)
            >> brings(ROLE, after=1)
            >> is_lost(Failure.RESET, after=60)
            << again("replay", delay=0)
        )
        play >> answers(after=3) >> brings(ANSWER, after=6) << speaks(ANSWER) >> ends() << EndTurn()
        assert self.moments(play) == [(0, None, None, 1), (1.5, 2, None, 3), (11.5, 4, None, 65), (76.5, 3, 9, 9)]

    def test_of_an_answer_in_one_piece_which_speaks_when_it_is_whole(self) -> None:
        play = Playbook(streaming=False) >> answers(content_type="application/json", after=2) >> brings(b"{", after=3)
        play >> brings(b"}", after=4) >> ends(after=5) << speaks(b"{}") << EndTurn()
        assert self.moments(play) == [(0, 2, 14, 14)]

    def test_of_one_that_is_too_long_to_be_held(self) -> None:
        play = Playbook(streaming=False, max_hold=4) >> answers(content_type="application/json", after=2)
        play >> brings(b'{"a": ', after=3) << speaks(b'{"a": ') >> brings(b"1}", after=4) << Give(b"1}")
        play >> ends() << EndTurn()
        assert self.moments(play) == [(0, 2, 5, 9)]

    def test_of_a_prelude_that_is_too_long_to_be_held(self) -> None:
        play = Playbook(max_prelude=9) >> answers(after=2) >> brings(COMMENT, after=3) << speaks(COMMENT)
        play >> is_lost(Failure.RESET, after=1) << fails(StreamCut)
        assert self.moments(play) == [(0, 2, 5, 6)]

    def test_an_empty_answer_has_spoken_too(self) -> None:
        play = Playbook() >> answers() >> brings(ROLE) >> brings(STOP + DONE, after=3) << speaks(ROLE + STOP + DONE)
        play >> ends() << EndTurn()
        assert self.moments(play) == [(0, 0, 3, 3)]

    @pytest.mark.parametrize(
        "play",
        [
            lambda: Playbook() >> answers(401, after=2) << gives_head(401) >> brings(b"x") << Give(b"x") >> ends(),
            lambda: (
                Playbook(retries=0) >> answers(429, after=2) << gives_head(429) >> brings(b"x") << Give(b"x") >> ends()
            ),
            lambda: Playbook() >> answers(429, after=2) >> brings(QUOTA) >> ends() << speaks(QUOTA, 429),
            lambda: Playbook() >> answers(200, "text/html", after=2) >> brings(b"<") << speaks(b"<") >> ends(),
            lambda: Playbook() >> answers(after=2) >> brings(ROLE + INVALID) << speaks(ROLE + INVALID) >> ends(),
            lambda: Playbook(replays=0) >> answers(after=2) >> brings(OVERLOADED) << speaks(OVERLOADED) >> ends(),
        ],
        ids=["a refusal", "a busy server", "an exhausted quota", "a page", "an error", "an error that may pass"],
    )
    def test_what_is_no_answer_has_no_output(self, play: Callable[[], Playbook]) -> None:
        assert self.moments(play() << EndTurn()) == [(0, 2, None, 2)]

    def test_nor_has_a_cut_prelude(self) -> None:
        play = Playbook(replays=0) >> answers(after=2) >> brings(ROLE, after=3) >> is_lost(Failure.RESET, after=4)
        play << fails(StreamCut)
        assert self.moments(play) == [(0, 2, None, 9)]

    def test_output_that_comes_with_an_error_is_output(self) -> None:
        play = Playbook() >> answers() >> brings(text("Hi") + INVALID, after=3) << speaks(text("Hi") + INVALID)
        play >> ends() << EndTurn()
        assert self.moments(play) == [(0, 0, 3, 3)]


class TestWhileItRuns:
    def facts(self, play: Playbook, *, sent: bool = True) -> tuple[Any, ...]:
        running = play.turn.running(play.now, sent=sent, silent=1.5)
        assert running is not None
        assert (running.failure, running.detail) == (None, "")
        return running.number, running.phase, running.status, running.headers_after, running.output_after

    def test_an_attempt_is_described_as_far_as_it_has_come(self) -> None:
        play = Playbook()
        assert self.facts(play, sent=False) == (1, Phase.CONNECT, None, None, None)
        assert self.facts(play) == (1, Phase.HEADERS, None, None, None)
        play >> answers(after=2)
        assert self.facts(play) == (1, Phase.PRELUDE, 200, 2, None)
        play >> brings(text("Hi"), after=3) << speaks(text("Hi"))
        assert self.facts(play) == (1, Phase.OUTPUT, 200, 2, 5)
        play >> brings(STOP) << Give(STOP)
        assert self.facts(play) == (1, Phase.SETTLED, 200, 2, 5)

    def test_to_describe_it_changes_nothing(self) -> None:
        play = Playbook()
        assert self.facts(play) == self.facts(play)
        assert play.turn.phase is Phase.CONNECT
        play >> is_lost(Failure.RESET, sent=False) << again("retry", delay=0.5)

    def test_it_says_how_long_and_how_silent(self) -> None:
        play = Playbook() >> answers(after=2)
        running = play.turn.running(play.now + 5, sent=True, silent=4)
        assert running is not None
        assert (running.elapsed, running.silent, running.after) == (7, 4, 0)
        assert running not in play.attempts

    def test_the_next_attempt_is_described_during_the_wait_for_it(self) -> None:
        play = Playbook() >> answers(503, after=2, retry_after="7") >> ends()
        running = play.turn.running(play.now + 1, sent=False)
        assert running is not None
        assert (running.number, running.after, running.elapsed) == (2, 9, 0)

    @pytest.mark.parametrize(
        "play",
        [
            lambda: settled() >> ends(),
            lambda: spoken() >> is_lost(Failure.RESET),
            lambda: spoken() >> is_cancelled(),
            lambda: Playbook(retries=0) >> is_unreachable(),
        ],
        ids=["finished", "cut", "cancelled", "failed"],
    )
    def test_there_is_none_once_it_is_over(self, play: Callable[[], Playbook]) -> None:
        stage = play()
        assert stage.turn.running(stage.now, sent=True) is None
        assert len(stage.attempts) == 1
