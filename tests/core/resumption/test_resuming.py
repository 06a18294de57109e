"""A response that goes on at the server is taken up where its stream was cut: every phase, in virtual time."""

from __future__ import annotations

import pytest

from core.playbook import (
    COMMENT,
    Check,
    Playbook,
    again,
    answers,
    brings,
    done,
    ends,
    fails,
    is_cancelled,
    is_lost,
    is_unreachable,
    path,
    reads,
    speaks,
    waits,
)
from core.resumption.responses import (
    ANSWER,
    CREATED,
    END,
    HEL,
    ITEM,
    LO,
    PRELUDE,
    RESPONSE,
    URL,
    asked,
    fails_after_output,
    numbered,
    spoken,
    turn,
)
from unbroken.core.actions import Action, Drop, EndTurn, Fail, Give, Notify, RetryEvent, Send
from unbroken.core.failures import Failure, Row
from unbroken.core.http import Request
from unbroken.core.sse import encode
from unbroken.core.suspicion import SecondStands, Suspected
from unbroken.errors import CallerTimeout, FirstOutputTimeout, StreamCut, Unreachable

LOST = [failure for failure in Failure if failure.row is Row.LOST and failure is not Failure.MISFIT]


def resumes(after: int, delay: float = 0.0, of: int | None = None) -> list[Check]:
    """The observer is told, and the response is taken up behind an event."""

    def is_for_the_rest(action: Action, play: Playbook) -> None:
        assert isinstance(action, Send)
        assert action.request is not None
        assert (action.request.method, action.request.body) == ("GET", b"")
        assert action.request.url == f"{URL}/resp_1?stream=true&starting_after={after}"

    def told(action: Action, play: Playbook) -> None:
        assert isinstance(action, Notify)
        assert isinstance(action.event, RetryEvent)
        assert (action.event.action, action.event.after, action.event.delay) == ("resume", str(after), delay)
        assert of is None or action.event.of == of

    steps = again("resume", delay=delay)
    return [steps[0], told, *steps[2:-1], is_for_the_rest]


class TestACutStream:
    @pytest.mark.parametrize("failure", LOST)
    def test_in_the_prelude(self, failure: Failure) -> None:
        play = turn() >> answers() >> brings(PRELUDE) >> is_lost(failure, after=60) << resumes(1)
        play >> answers() >> brings(HEL) << speaks(PRELUDE + HEL)
        play >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()
        assert [one.after for one in play.report.resumes] == ["1"]
        assert [one.resumes for one in play.attempts] == [None, "1"]
        assert (play.report.replays, play.report.retries, play.report.possibly_billed) == (0, 0, 0)

    @pytest.mark.parametrize("failure", [*LOST, Failure.NOT_PROCESSED])
    def test_after_output(self, failure: Failure) -> None:
        play = spoken() >> is_lost(failure, after=60) << resumes(2)
        play >> answers() >> brings(LO) << Give(LO) >> brings(END) << Give(END) >> ends() << EndTurn()
        assert [one.billed for one in play.attempts] == ["yes", "no"]

    def test_in_the_middle_of_an_event(self) -> None:
        play = spoken() >> brings(LO[:30]) >> is_lost(Failure.RESET) << resumes(2)
        play >> answers() >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()

    def test_by_a_clean_end(self) -> None:
        play = spoken() >> brings(LO[:30]) >> ends() << resumes(2)
        play >> answers() >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()

    def test_a_whole_event_without_its_blank_line_comes_again(self) -> None:
        play = spoken() >> brings(LO[:-1]) >> ends() << resumes(2)
        play >> answers() >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()

    def test_the_last_event_may_lack_its_blank_line(self) -> None:
        play = spoken() >> brings(LO) << Give(LO)
        play >> brings(END[:-1]) >> ends() << Give(END[:-1]) << EndTurn()

    @pytest.mark.parametrize("hold", ["reasoning", "answer"])
    def test_what_was_held_stays_held(self, hold: str) -> None:
        thought = numbered(2, "response.reasoning_summary_text.delta", delta="Hm")
        play = turn(hold=hold) >> answers() >> brings(PRELUDE + thought) >> is_lost(Failure.RESET) << resumes(2)
        play >> answers() >> brings(LO + END) << speaks(PRELUDE + thought + LO + END) >> ends() << EndTurn()
        assert play.attempts[0].held
        assert play.report.possibly_billed == 0

    def test_after_it_settled_nothing_is_lost(self) -> None:
        play = spoken() >> brings(LO + END) << Give(LO + END)
        play >> is_lost(Failure.RESET) << done(Drop(), EndTurn())
        assert play.report.resumes == ()

    def test_as_often_as_it_makes_progress(self) -> None:
        play, answer = spoken(resumes=1), b""
        for number in range(3, 40):
            play >> is_lost(Failure.RESET) << resumes(number - 1, of=number - 1)
            event = numbered(number, "response.output_text.delta", delta="x")
            play >> answers() >> brings(event) << Give(event)
            answer += event
        end = numbered(40, "response.completed", response=RESPONSE | {"status": "completed"})
        play >> brings(end) << Give(end) >> ends() << EndTurn()
        assert len(play.report.resumes) == 37

    def test_no_more_than_ten_times_in_a_row(self) -> None:
        play, delays = spoken(), []
        for _ in range(10):
            play >> is_lost(Failure.RESET)
            [*_, told] = [action for action in play.rest() if isinstance(action, Notify)]
            assert isinstance(told.event, RetryEvent)
            delays.append(told.event.delay)
            play.now += told.event.delay
            play >> answers() >> brings(COMMENT) << Give(COMMENT)
        assert delays == [0, 0.5, 1, 2, 4, 8, 15, 15, 15, 15]
        play >> is_lost(Failure.RESET) << fails_after_output("no event came of 10 resumed streams")
        assert len(play.attempts) == 11

    def test_never_if_that_is_said(self) -> None:
        spoken(resumes=0) >> is_lost(Failure.RESET) << fails_after_output("no resumes allowed")


class TestTheRequestForTheRest:
    @pytest.mark.parametrize("answer", ["prelude", "output"])
    def test_failed_connections_are_retries(self, answer: str) -> None:
        play = spoken() if answer == "output" else turn() >> answers() >> brings(PRELUDE + HEL[:10])
        after = 2 if answer == "output" else 1
        play >> is_lost(Failure.RESET) << resumes(after)
        play >> is_unreachable() << again("retry", delay=0.5) >> is_unreachable() << again("retry", delay=1)
        play >> answers() >> brings(LO if after == 2 else HEL)
        play << (done(Give(LO)) if after == 2 else speaks(PRELUDE + HEL))
        assert (play.report.retries, play.report.replays) == (2, 0)
        assert [one.resumes for one in play.attempts] == [None, str(after), str(after)]
        assert [one.after for one in play.report.resumes] == [str(after)]

    def test_connections_that_fail_for_too_long_fail_the_turn(self) -> None:
        play = spoken(retries=1, unreachable_for=100) >> is_lost(Failure.RESET) << resumes(2)
        play >> is_unreachable() << again("retry", delay=0.5)
        play >> is_unreachable() << fails_after_output("1 retry used up")

    def test_before_output_too(self) -> None:
        play = turn(retries=0) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> is_unreachable() << done(Drop())
        [failed] = play.rest()
        assert isinstance(failed, Fail)
        assert (type(failed.error), failed.error.phase) == (StreamCut, "prelude")

    def test_one_that_was_lost_is_sent_again(self) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2) >> is_lost(Failure.RESET) << resumes(2, 0.5)
        play >> answers() >> brings(LO) << Give(LO)

    @pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
    @pytest.mark.parametrize("after", [0.0, 30.0])
    def test_busy_servers_are_asked_again(self, status: int, after: float) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2)
        play >> answers(status, "application/json", after=after) >> ends() << again("retry", delay=0.5)
        play >> answers() >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()
        assert (play.report.retries, play.report.replays) == (1, 0)

    def test_as_long_as_the_server_asks(self) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2)
        play >> answers(429, "application/json", retry_after="7") >> ends() << again("retry", delay=7)

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 422])
    def test_a_refusal_after_output_is_the_cut(self, status: int) -> None:
        play = spoken() >> is_lost(Failure.CLOSED) << resumes(2)
        play >> answers(status, "application/json") << fails_after_output(f"HTTP {status}")
        assert (play.attempts[-1].failure, play.attempts[-1].phase) == ("refused", "headers")
        assert play.report.resumes == ()

    def test_a_server_that_is_busy_for_too_long_is_one(self) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2)
        for attempt in range(5):
            play >> answers(503, "application/json") >> ends() << again("retry", delay=min(15, 0.5 * 2**attempt))
        play >> answers(503, "application/json") << fails_after_output("HTTP 503")

    @pytest.mark.parametrize("status", [400, 404])
    def test_a_refusal_before_output_is_not_replayed_where_the_call_acts(self, status: int) -> None:
        play = turn() >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> answers(status, "application/json") << done(Drop())
        [failed] = play.rest()
        assert isinstance(failed, Fail)
        assert (type(failed.error), failed.error.phase) == (StreamCut, "prelude")
        assert "not replayed: the call acts on the world" in str(failed.error)

    def test_and_is_replayed_where_it_may_be(self) -> None:
        play = turn(replay_side_effects=True) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> answers(404, "application/json") << again("replay", delay=0)
        other = ANSWER.replace(b"resp_1", b"resp_2")
        play >> answers() >> brings(other) << speaks(other) >> ends() << EndTurn()
        assert (play.report.replays, play.report.possibly_billed) == (1, 1)
        assert [one.resumes for one in play.attempts] == [None, "1", None]

    def test_not_before_the_time_that_the_refusal_names(self) -> None:
        play = turn(replay_side_effects=True, retries=0) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET)
        play << resumes(1) >> answers(429, "application/json", retry_after="30") << again("replay", delay=30)

    def test_never_if_that_is_too_far_away(self) -> None:
        play = turn(replay_side_effects=True) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> answers(503, "application/json", retry_after="61") << done(Drop())
        [failed] = play.rest()
        assert isinstance(failed, Fail)
        assert (type(failed.error), failed.error.phase) == (StreamCut, "prelude")
        assert "the provider asks to wait 61 s" in str(failed.error)

    def test_the_response_that_is_replayed_can_be_resumed_again(self) -> None:
        play = turn(replay_side_effects=True) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> answers(404, "application/json") << again("replay", delay=0)
        play >> answers() >> brings(CREATED) >> is_lost(Failure.RESET) << resumes(0)
        play >> answers() >> brings(ITEM + HEL) << speaks(PRELUDE + HEL)

    @pytest.mark.parametrize("status", [200, 204])
    def test_something_else_than_a_stream_is_a_refusal(self, status: int) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2) >> answers(status, "application/json")
        if status == 200:
            play >> brings(b'{"id": "resp_1"}')
        play << fails_after_output(f"HTTP {status}")

    @pytest.mark.parametrize(("status", "media_type"), [(200, "text/html"), (503, "application/json")])
    def test_nothing_flows_until_it_is_known_to_be_the_rest(self, status: int, media_type: str) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2) >> answers(status, media_type)
        assert play.turn.flowing is None

    def test_a_stream_of_another_media_type_is_a_stream(self) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2) >> answers(200, "text/plain")
        play >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()

    def test_its_headers_are_those_of_the_call_without_the_bodys(self) -> None:
        play = turn(asked(include=["reasoning.encrypted_content"], stream_options={"include_obfuscation": False}))
        play >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET)
        *_, sent = play.rest()
        assert isinstance(sent, Send)
        assert sent.request is not None
        assert sent.request.headers == ((b"Authorization", b"Bearer sk-1"), (b"accept", b"text/event-stream"))
        assert sent.request.parts.query == (
            "stream=true&starting_after=1&include[]=reasoning.encrypted_content&include_obfuscation=false"
        )

    def test_an_id_without_end_is_cut_short(self) -> None:
        endless = PRELUDE.replace(b"resp_1", b"r" * 100_000)
        play = turn() >> answers() >> brings(endless + HEL)
        play.rest()
        play >> is_lost(Failure.RESET)
        *_, sent = play.rest()
        assert isinstance(sent, Send)
        assert sent.request is not None
        assert len(sent.request.url) < 2000

    def test_the_query_of_the_url_stays(self) -> None:
        request = Request("POST", "https://a.example.com/openai/responses/?api-version=1", (), asked().body)
        play = turn(request) >> answers() >> brings(PRELUDE.replace(b"resp_1", b"resp/1")) >> is_lost(Failure.RESET)
        *_, sent = play.rest()
        assert isinstance(sent, Send)
        assert sent.request is not None
        assert sent.request.url == (
            "https://a.example.com/openai/responses/resp%2F1?api-version=1&stream=true&starting_after=1"
        )


class TestEventsThatDoNotFollow:
    @pytest.mark.parametrize(
        "events",
        [LO + END.replace(b": 4", b": 5"), END, LO + LO, HEL + LO, CREATED + ITEM + HEL + LO, b"data: {}\n\n" + LO],
        ids=["missing", "missing first", "repeated", "rewound", "from the start", "unnumbered"],
    )
    @pytest.mark.parametrize("is_spoken", [True, False])
    def test_of_a_stream_that_was_taken_up_are_an_error(self, events: bytes, is_spoken: bool) -> None:
        play = spoken() if is_spoken else turn(hold="answer", replay_side_effects=True) >> answers()
        if not is_spoken:
            play >> brings(PRELUDE + HEL)
        play >> is_lost(Failure.RESET) << resumes(2)
        play >> answers() >> brings(events) << fails_after_output("does not fit")
        assert play.attempts[-1].failure == "misfit"

    def test_of_the_first_stream_are_handed_on_and_only_resuming_is_impossible(self) -> None:
        play = spoken() >> brings(END.replace(b": 4", b": 9")) << Give(END.replace(b": 4", b": 9"))
        play >> ends() << EndTurn()
        play = spoken() >> brings(LO.replace(b": 3", b": 9")) << Give(LO.replace(b": 3", b": 9"))
        play >> is_lost(Failure.RESET) << fails_after_output("not resumed: event 2 is followed by event 9")

    def test_without_numbers_or_an_id_nothing_is_resumed(self) -> None:
        play = turn() >> answers() >> brings(encode('{"type":"response.output_text.delta","delta":"Hi"}'))
        play.rest()
        play >> is_lost(Failure.RESET) << fails_after_output("not resumed: an event has no number")
        play = turn() >> answers() >> brings(HEL) << speaks(HEL)
        play >> is_lost(Failure.RESET) << fails_after_output("not resumed: the response's id had not come")

    def test_keepalives_without_numbers_may_come_anywhere(self) -> None:
        ping = encode('{"type": "keepalive"}', event="keepalive") + COMMENT
        play = turn() >> answers() >> brings(PRELUDE + ping + HEL) << speaks(PRELUDE + ping + HEL)
        play >> is_lost(Failure.RESET) << resumes(2)
        play >> answers() >> brings(ping + LO + ping + END) << Give(ping + LO + ping + END) >> ends() << EndTurn()

    def test_a_byte_order_mark_is_not_repeated(self) -> None:
        play = spoken() >> is_lost(Failure.RESET) << resumes(2)
        play >> answers() >> brings(b"\xef\xbb\xbf" + LO) << Give(LO)


class TestOtherEnds:
    def test_before_its_id_came_the_rule_holds(self) -> None:
        play = turn() >> is_lost(Failure.RESET) << fails(StreamCut, "not replayed: the call acts on the world")
        play = turn() >> answers() >> is_lost(Failure.RESET)
        play << fails(StreamCut, "not replayed: the call acts on the world")

    def test_a_signed_request_cannot_ask_for_the_rest(self) -> None:
        play = turn(asked(((b"authorization", b"AWS4-HMAC-SHA256 Credential=1"),)))
        play >> answers() >> brings(PRELUDE + HEL) << speaks(PRELUDE + HEL)
        play >> is_lost(Failure.RESET) << fails_after_output("not resumed: its request is signed")

    def test_an_error_in_a_stream_that_was_taken_up_is_the_responses(self) -> None:
        error = encode('{"type": "error", "error": {"type": "server_error", "message": "no"}}', event="error")
        for play, given in [
            (spoken(), done(Give(error))),
            (turn() >> answers() >> brings(PRELUDE), speaks(PRELUDE + error)),
        ]:
            play >> is_lost(Failure.RESET)
            play.rest()
            play >> answers() >> brings(error) << given
            play >> ends() << EndTurn()

    def test_the_callers_own_timeout_is_raised(self) -> None:
        play = spoken() >> is_lost(Failure.CALLER_TIMEOUT) << fails_after_output(kind=CallerTimeout)
        play = spoken() >> is_lost(Failure.RESET) << resumes(2)
        play >> is_lost(Failure.CALLER_TIMEOUT) << fails(CallerTimeout)

    def test_the_first_output_is_waited_for_since_the_response_was_asked_for(self) -> None:
        play = turn(first_output_timeout=100) >> answers() >> brings(PRELUDE, after=10)
        play >> is_lost(Failure.RESET, after=50) << resumes(1) >> answers(after=5) << reads(until=100)
        play >> is_lost(Failure.DEADLINE, after=35) << fails(FirstOutputTimeout)

    def test_output_without_end_is_waited_for_from_the_new_stream_on(self) -> None:
        play = spoken(stall_output_timeout=20) >> is_lost(Failure.DEADLINE, after=20) << resumes(2)
        play >> answers(after=100) << reads(until=140)

    def test_a_turn_that_made_progress_is_resumed_however_long_it_took(self) -> None:
        play = spoken(give_up_after=60) >> is_lost(Failure.RESET, after=500) << resumes(2)
        play >> answers() >> brings(LO, after=500) << Give(LO)
        play >> is_lost(Failure.RESET) << resumes(3)
        play >> is_lost(Failure.RESET, after=61) << fails_after_output("gave up after 60 s")

    def test_the_caller_may_leave_at_any_time(self) -> None:
        for event in (is_lost(Failure.RESET), None):
            play = spoken()
            if event:
                play >> event << resumes(2)
            play >> is_cancelled() << EndTurn()
            assert play.attempts[-1].failure == "cancelled"

    def test_a_path_that_does_not_answer_is_given_up_after_output_too(self) -> None:
        play = spoken() >> path(Suspected(20.0), after=20)
        play.rest()
        play >> path(SecondStands()) << [lambda action, _: None] << waits(revive=50)
        play >> is_lost(Failure.DEAD_PATH, after=30) << resumes(2)
        play >> answers() >> brings(LO) << Give(LO)

    def test_the_head_is_that_of_the_first_stream_without_a_length(self) -> None:
        play = turn() >> answers(x_request_id="1", content_length="5") >> brings(PRELUDE) >> is_lost(Failure.RESET)
        play << resumes(1) >> answers(x_request_id="2") >> brings(HEL) << speaks(PRELUDE + HEL)
        assert play.head is not None
        assert play.head.fields == {"content-type": "text/event-stream", "x-request-id": "1"}

    def test_a_turn_that_fails_lost_one_response(self) -> None:
        play = turn(retries=0) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << resumes(1)
        play >> is_unreachable()
        play.rest()
        assert play.report.possibly_billed == 1

    def test_a_call_without_background_is_not_resumed(self) -> None:
        play = turn(asked(background=False)) >> answers() >> brings(PRELUDE + HEL) << speaks(PRELUDE + HEL)
        play >> is_lost(Failure.RESET) << fails(StreamCut)
        play = turn(asked(background=False)) >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET)
        play << again("replay", delay=0)

    def test_a_connection_that_never_stood_is_unreachable(self) -> None:
        turn(retries=0) >> is_unreachable() << fails(Unreachable)
