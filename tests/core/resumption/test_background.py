"""A response is made to go on at the server, although the caller did not ask for that: in virtual time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.playbook import (
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
    speaks,
)
from core.resumption.responses import (
    ANSWER,
    END,
    HEL,
    LO,
    PRELUDE,
    URL,
    asked,
    fails_after_output,
    spoken,
    turn,
)
from unbroken.core.actions import Drop, EndTurn, Fail, Give, Parting, Send
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Request
from unbroken.core.report import BackgroundReport
from unbroken.core.resumption.refused import REMEMBERED, RefusedBackgrounds
from unbroken.core.sse import encode
from unbroken.errors import StreamCut

REFUSAL = b'{"error": {"message": "Background mode requires store=true.", "param": "store"}}'


def plain(**body: Any) -> Request:
    """What a caller asks for that did not think of it."""
    request = asked(**body)
    fields = json.loads(request.body)
    if "background" not in body:
        del fields["background"]
    return request.with_body(json.dumps(fields).encode())


def added(request: Request | None = None, **policy: Any) -> Playbook:
    return turn(request or plain(), background=True, **policy)


def sent(play: Playbook) -> Request | None:
    """What is sent next; ``None`` for the caller's own request."""
    *_, action = play.rest()
    assert isinstance(action, Send)
    return action.request


class TestAsking:
    def test_the_field_is_added_and_the_rest_left_as_it_was(self) -> None:
        original = plain(store=False, metadata={"n": 1.50})
        request = sent(added(original))
        assert request is not None
        assert (request.method, request.url, request.headers) == ("POST", URL, original.headers)
        assert json.loads(request.body) == json.loads(original.body) | {"background": True}

    def test_a_stream_that_was_cut_is_taken_up(self) -> None:
        play = spoken(plain(), background=True) >> is_lost(Failure.RESET) << again("resume", delay=0)
        play >> answers() >> brings(LO + END) << Give(LO + END) >> ends() << EndTurn()
        assert play.report.background == BackgroundReport(added=True)

    @pytest.mark.parametrize(
        ("request_", "why_not"),
        [
            (plain(tools=[{"type": "mcp"}]), "the call acts on the world"),
            (plain(conversation="conv_1"), "the call acts on the world"),
            (plain(background=False), "the caller's request says otherwise"),
            (Request("POST", URL, ((b"content-digest", b"sha-256=:x:"),), plain().body), "the request is signed"),
            (Request("POST", URL, (), plain(top_p=1).body.replace(b"1", b"NaN")), "the request is not strict JSON"),
        ],
        ids=["tools", "conversation", "said", "signed", "lenient"],
    )
    def test_where_it_is_not_added_the_report_says_why(self, request_: Request, why_not: str) -> None:
        play = added(request_)
        assert sent(play) is None
        assert play.report.background == BackgroundReport(added=False, why_not=why_not)

    def test_nothing_is_told_where_it_is_not_to_be_added(self) -> None:
        assert turn(plain()).report.background is None
        assert turn(background=True).report.background is None  # the caller has asked
        assert added(plain(stream=False)).report.background is None
        assert Playbook(background=True).report.background is None


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 422])
    @pytest.mark.parametrize("policy", [{}, {"retries": 0, "replays": 0}])
    def test_the_call_is_made_as_the_caller_wrote_it(self, status: int, policy: dict[str, Any]) -> None:
        refused = RefusedBackgrounds()
        play = added(refused=refused, **policy) >> answers(status, "application/json") >> brings(REFUSAL[:20])
        play >> brings(REFUSAL[20:]) >> ends() << again("retry", delay=0)
        play >> answers() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()
        why_not = f"the server refuses it (HTTP {status})"
        assert play.report.background == BackgroundReport(added=False, why_not=why_not)
        assert [one.billed for one in play.attempts] == ["no", "yes"]
        assert refused.has(URL, "None")

    def test_and_such_a_server_is_not_asked_again(self) -> None:
        refused = RefusedBackgrounds()
        play = (
            added(plain(store=False), refused=refused) >> answers(400, "application/json") >> brings(REFUSAL) >> ends()
        )
        play << again("retry", delay=0) >> answers()
        other = added(plain(store=False), refused=refused)
        assert sent(other) is None
        assert other.report.background == BackgroundReport(added=False, why_not="the server has refused it before")
        assert sent(added(plain(), refused=refused)) is not None  # it may refuse it for that store alone
        elsewhere = msgspec.structs.replace(plain(store=False), url="https://other.example.com/v1/responses")
        assert sent(added(elsewhere, refused=refused)) is not None

    def test_another_refusal_is_handed_on_and_not_remembered(self) -> None:
        body, refused = b'{"error": {"message": "max_output_tokens is too large"}}', RefusedBackgrounds()
        play = added(refused=refused) >> answers(400, "application/json") >> brings(body) >> ends()
        play << speaks(body, 400) << EndTurn()
        assert not refused.has(URL, "None")
        assert play.attempts[-1].failure == "refused"

    def test_nor_is_one_that_the_callers_own_request_gets_too(self) -> None:
        refused = RefusedBackgrounds()
        play = added(refused=refused) >> answers(400, "application/json") >> brings(REFUSAL) >> ends()
        play << again("retry", delay=0) >> answers(400, "application/json")
        play.rest()
        play >> brings(REFUSAL) << Give(REFUSAL) >> ends() << EndTurn()
        assert not refused.has(URL, "None")

    def test_other_statuses_are_treated_as_ever(self) -> None:
        play = added() >> answers(404, "application/json")
        assert play.rest()
        play = added() >> answers(503, "application/json") >> ends() << again("retry", delay=0.5)
        play = turn(plain()) >> answers(400, "application/json")
        assert len(play.rest()) == 2  # nothing is held of it

    def test_a_stream_that_was_made_as_written_is_not_taken_up(self) -> None:
        play = added() >> answers(400, "application/json") >> brings(REFUSAL) >> ends() << again("retry", delay=0)
        play >> answers() >> brings(PRELUDE + HEL) << speaks(PRELUDE + HEL)
        play >> is_lost(Failure.RESET) << fails(StreamCut)

    def test_so_many_are_remembered(self) -> None:
        refused = RefusedBackgrounds()
        for number in range(REMEMBERED + 1):
            refused.add(f"https://{number}.example.com/v1/responses?key=1", "")
        assert not refused.has("https://0.example.com/v1/responses", "")
        assert refused.has("https://1.example.com/v1/responses", "")


class TestLostBeforeItsIdCame:
    def test_it_is_replayed_and_runs_on(self) -> None:
        play = added() >> is_lost(Failure.RESET, after=60) << again("replay", delay=0)
        assert (play.attempts[0].runs_on, play.attempts[0].billed) == (True, "unknown")
        assert play.report.background == BackgroundReport(added=True)
        play >> answers() >> is_lost(Failure.RESET) << again("replay", delay=0.5)
        assert (play.attempts[1].runs_on, play.attempts[1].billed) == (True, "yes")
        play >> answers() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()
        assert not play.attempts[2].runs_on

    def test_no_oftener_than_replays_allow(self) -> None:
        play = added(replays=1) >> is_lost(Failure.RESET) << again("replay", delay=0)
        play >> is_lost(Failure.RESET) << fails(StreamCut, "1 replay used up")
        assert [one.runs_on for one in play.attempts] == [True, True]

    def test_what_was_never_sent_does_not_run(self) -> None:
        play = added() >> is_unreachable() << again("retry", delay=0.5)
        assert not play.attempts[0].runs_on

    def test_nor_does_what_failed_there(self) -> None:
        error = encode('{"type": "error", "error": {"type": "server_error", "message": "no"}}', event="error")
        play = added() >> answers() >> brings(PRELUDE + error) << again("replay", delay=0.5)
        assert not play.attempts[0].runs_on

    def test_a_response_that_the_server_refuses_to_resume_is_replayed(self) -> None:
        play = added() >> answers() >> brings(PRELUDE) >> is_lost(Failure.RESET) << again("resume", delay=0)
        play >> answers(404, "application/json") << again("replay", delay=0)
        assert play.attempts[1].runs_on
        play >> answers() >> brings(ANSWER) << speaks(ANSWER)


def partings(play: Playbook) -> list[tuple[str, str, str]]:
    return [(one.kind, one.request.method, one.request.url) for one in play.turn.partings]


CANCEL = ("cancel", "POST", f"{URL}/resp_1/cancel")
DELETE = ("delete", "DELETE", f"{URL}/resp_1")


class TestPartings:
    def test_a_response_whose_caller_leaves_is_cancelled(self) -> None:
        for play in (added() >> answers() >> brings(PRELUDE), spoken(plain(), background=True)):
            play >> is_cancelled() << EndTurn()
            assert partings(play) == [CANCEL]
            assert not play.attempts[-1].runs_on
            [parting] = play.turn.partings
            assert parting.request.headers == asked().headers[:1]
            play.turn.parted(parting, acknowledged=True)
            assert play.turn.partings == []
            assert play.report.background == BackgroundReport(added=True, cancelled=True)

    def test_and_deleted_if_the_caller_wants_nothing_kept(self) -> None:
        play = spoken(plain(store=False), background=True) >> is_cancelled() << EndTurn()
        assert partings(play) == [CANCEL, DELETE]
        for parting in play.turn.partings:
            play.turn.parted(parting, acknowledged=False)
        assert play.report.background == BackgroundReport(added=True, cancelled=False, deleted=False)
        assert play.report.background.unacknowledged == ("cancel", "delete")

    def test_one_that_has_ended_is_not_cancelled(self) -> None:
        for store, expected in [(None, []), (True, []), (False, [DELETE])]:
            play = spoken(plain(store=store), background=True) >> brings(LO + END) << Give(LO + END)
            play >> ends() << EndTurn()
            assert partings(play) == expected
            play = spoken(plain(store=store), background=True) >> brings(LO + END) << Give(LO + END)
            play >> is_cancelled() << EndTurn()
            assert partings(play) == expected

    def test_one_of_a_turn_that_failed_is(self) -> None:
        play = spoken(plain(), background=True, resumes=0) >> is_lost(Failure.RESET) << fails_after_output()
        assert partings(play) == [CANCEL]
        play = spoken(plain(), background=True) >> is_lost(Failure.RESET)
        play.rest()
        play >> answers(404, "application/json") << fails_after_output("HTTP 404")
        assert partings(play) == [CANCEL]

    def test_one_that_is_just_taken_up_is(self) -> None:
        play = spoken(plain(), background=True) >> is_lost(Failure.RESET) << again("resume", delay=0)
        play >> is_cancelled() << EndTurn()
        assert partings(play) == [CANCEL]

    def test_one_whose_id_is_not_known_runs_on(self) -> None:
        play = added() >> is_cancelled() << EndTurn()
        assert partings(play) == []
        assert (play.attempts[-1].runs_on, play.attempts[-1].phase) == (True, Phase.HEADERS)
        play = added() >> is_cancelled(sent=False) << EndTurn()
        assert not play.attempts[-1].runs_on

    def test_a_callers_own_is_left_alone(self) -> None:
        play = spoken(asked(store=False), background=True) >> is_cancelled() << EndTurn()
        assert partings(play) == []
        assert not play.attempts[-1].runs_on
        assert play.report.background is None

    def test_one_that_failed_in_the_stream_has_ended(self) -> None:
        failed = encode('{"type": "response.failed", "sequence_number": 3, "response": {"id": "resp_1"}}')
        play = spoken(plain(), background=True) >> brings(failed) << Give(failed) >> ends() << EndTurn()
        assert partings(play) == []


def test_the_error_says_why_a_stream_was_not_taken_up_where_it_was_asked_as_written() -> None:
    play = turn(plain(tools=[{"type": "mcp"}]), background=True) >> answers() >> brings(PRELUDE + HEL)
    play << speaks(PRELUDE + HEL) >> is_lost(Failure.RESET) << done(Drop())
    [failed] = play.rest()
    assert isinstance(failed, Fail)
    assert "not resumable: the call acts on the world" in str(failed.error)


def test_partings_are_plain_data() -> None:
    [parting] = (spoken(plain(), background=True) >> is_cancelled() << EndTurn()).turn.partings
    assert parting == Parting("cancel", parting.request)
