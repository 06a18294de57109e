"""A response that a relay keeps is taken up behind the last byte that came: every phase, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from core.playbook import (
    ANSWER,
    DONE,
    ROLE,
    STOP,
    Check,
    Event,
    Playbook,
    again,
    answers,
    brings,
    done,
    ends,
    is_lost,
    is_unreachable,
    speaks,
    text,
)
from unbroken.core.actions import Action, Drop, EndTurn, Fail, Give, Notify, RetryEvent, Send
from unbroken.core.failures import Failure, Row
from unbroken.core.http import Request
from unbroken.drivers.notices import describe, resumed
from unbroken.errors import StreamCut

URL = "http://127.0.0.1:8765/lab/v1/chat/completions"
HEADERS = ((b"Authorization", b"Bearer sk-1"), (b"Content-Type", b"application/json"), (b"X-Unbroken-Key", b"k"))
BODY = b'{"model": "m", "stream": true, "messages": []}'
LOST = [failure for failure in Failure if failure.row is Row.LOST and failure is not Failure.MISFIT]
HEL, LO = text("Hel"), text("lo")


def turn(kept_at: str | None = "", url: str = URL, **policy: Any) -> Playbook:
    return Playbook(request=Request("POST", url, HEADERS, BODY), kept_at=kept_at, **policy)


def kept(**headers: str) -> Event:
    """The head of a response that a relay keeps."""
    return answers(x_unbroken_turn="cafe-1/x", x_unbroken_keep="300", **headers)


def spoken(**given: Any) -> Playbook:
    return turn(**given) >> kept() >> brings(ROLE + HEL) << speaks(ROLE + HEL)


AT = "http://127.0.0.1:8765/_unbroken/turns/cafe-1%2Fx?"


def is_cut(words: str) -> list[Check]:
    """The turn fails, after output."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Fail)
        assert (type(action.error), action.error.phase) == (StreamCut, "output")
        assert words in str(action.error)

    return [*done(Drop()), check]


def resumes(after: int, delay: float = 0.0, url: str = AT) -> list[Check]:
    def is_for_the_rest(action: Action, play: Playbook) -> None:
        assert isinstance(action, Send)
        assert action.request is not None
        assert (action.request.method, action.request.body) == ("GET", b"")
        assert action.request.url == f"{url}after={after}"
        assert {name for name, _ in action.request.headers} == {b"Authorization", b"X-Unbroken-Key"}

    def told(action: Action, play: Playbook) -> None:
        assert isinstance(action, Notify)
        assert isinstance(action.event, RetryEvent)
        assert (action.event.action, action.event.after, action.event.delay) == ("resume", f"byte {after}", delay)
        assert f"resuming after byte {after}" in describe(action.event)

    steps = again("resume", delay=delay)
    return [steps[0], told, *steps[2:-1], is_for_the_rest]


@pytest.mark.parametrize("failure", LOST)
def test_in_the_prelude(failure: Failure) -> None:
    play = turn() >> kept() >> brings(ROLE) >> is_lost(failure) << resumes(len(ROLE))
    play >> kept() >> brings(ANSWER[len(ROLE) :]) << speaks(ANSWER) >> ends() << EndTurn()
    assert [one.after for one in play.report.resumes] == [f"byte {len(ROLE)}"]
    assert (play.report.replays, play.report.retries, play.report.possibly_billed) == (0, 0, 0)


@pytest.mark.parametrize("failure", [*LOST, Failure.NOT_PROCESSED])
def test_after_output(failure: Failure) -> None:
    play = spoken() >> is_lost(failure) << resumes(len(ROLE + HEL))
    play >> kept() >> brings(LO) << Give(LO) >> brings(STOP + DONE) << Give(STOP + DONE) >> ends() << EndTurn()
    assert [one.billed for one in play.attempts] == ["yes", "no"]


@pytest.mark.parametrize("half", [1, 30, len(LO) - 1])
def test_half_of_an_event_is_not_asked_for_again(half: int) -> None:
    play = spoken() >> brings(LO[:half]) << Give(LO[:half]) >> is_lost(Failure.RESET)
    play << resumes(len(ROLE + HEL) + half)
    play >> kept() >> brings(LO[half:] + STOP + DONE) << Give(LO[half:] + STOP + DONE) >> ends() << EndTurn()


def test_half_of_an_event_of_the_prelude_is_kept() -> None:
    play = turn() >> kept() >> brings(ROLE[:20]) >> is_lost(Failure.RESET) << resumes(20)
    play >> kept() >> brings(ROLE[20:] + HEL) << speaks(ROLE + HEL)


def test_cut_again_and_again() -> None:
    play, at = spoken(), len(ROLE + HEL)
    for _ in range(12):
        play >> is_lost(Failure.RESET) << resumes(at) >> kept() >> brings(LO) << Give(LO)
        at += len(LO)
    play >> brings(STOP + DONE) << Give(STOP + DONE) >> ends() << EndTurn()
    assert len(play.report.resumes) == 12


def test_a_relay_that_is_not_there_is_tried_for_a_while() -> None:
    play = spoken(resumes=2) >> is_lost(Failure.RESET) << resumes(len(ROLE + HEL))
    play >> is_unreachable() << again("retry", delay=0.5) >> kept() >> brings(LO) << Give(LO)


def test_what_the_relay_no_longer_has_is_a_cut() -> None:
    play = spoken() >> is_lost(Failure.RESET) << resumes(len(ROLE + HEL))
    play >> answers(404, "application/json") << is_cut("HTTP 404")


def test_before_output_it_is_replayed_then() -> None:
    play = turn() >> kept() >> brings(ROLE) >> is_lost(Failure.RESET) << resumes(len(ROLE))
    play >> answers(404, "application/json") << again("replay", delay=0.0)
    play >> kept() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()


def test_nothing_in_a_row_is_given_up() -> None:
    play = spoken(resumes=1) >> is_lost(Failure.RESET) << resumes(len(ROLE + HEL)) >> kept()
    play >> is_lost(Failure.RESET) << is_cut("not resumed")


def test_a_relay_that_is_named_is_asked_and_a_key_in_the_query_goes_along() -> None:
    play = turn(kept_at="https://relay.example/there/", url=f"{URL}?key=k-1") >> kept() >> brings(ROLE)
    play >> is_lost(Failure.RESET)
    play << resumes(len(ROLE), url="https://relay.example/there/_unbroken/turns/cafe-1%2Fx?key=k-1&")


@pytest.mark.parametrize(
    "head",
    [
        answers(),
        answers(x_unbroken_turn="cafe0001"),
        answers(x_unbroken_keep="300"),
        answers(x_unbroken_turn="cafe0001", x_unbroken_keep="300", content_encoding="gzip"),
    ],
)
def test_what_is_not_kept_is_replayed(head: Event) -> None:
    turn() >> head >> is_lost(Failure.RESET) << again("replay", delay=0.0)


def test_who_does_not_ask_for_it_does_not_get_it() -> None:
    turn(kept_at=None) >> kept() >> brings(ROLE) >> is_lost(Failure.RESET) << again("replay", delay=0.0)


def test_places_are_bytes_in_words() -> None:
    assert resumed(["byte 3"]) == "resumed after byte 3"
    assert resumed(["byte 3", "byte 9"]) == "resumed after bytes 3 and 9"
