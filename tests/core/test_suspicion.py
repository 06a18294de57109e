"""A path that does not answer, in virtual time: what is tried beside it, how long it has, and what is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from core.playbook import (
    DONE,
    ROLE,
    STOP,
    Event,
    Playbook,
    again,
    answers,
    brings,
    ends,
    fails,
    is_lost,
    is_unreachable,
    path,
    speaks,
    tells,
    text,
    waits,
)
from unbroken.core.actions import EndTurn, Give, Read, Send
from unbroken.core.failures import Failure, Phase
from unbroken.core.paths import PathName, Paths
from unbroken.core.suspicion import Recovered, SecondFailed, SecondStands, Suspected
from unbroken.errors import FirstOutputTimeout, StreamCut, Unreachable

NO_ROUTE = SecondFailed(Failure.NO_ROUTE)

TRYING = "no answer from the path for 20 s, trying a second connection beside it"
STILL = "no answer from the path for 20 s, still waiting"


def prelude() -> Playbook:
    return Playbook() >> answers() >> brings(ROLE)


BEFORE_OUTPUT = pytest.mark.parametrize(
    ("events", "phase"),
    [((), Phase.HEADERS), ((answers(),), Phase.PRELUDE), ((answers(), brings(ROLE)), Phase.PRELUDE)],
    ids=["headers", "after headers", "prelude"],
)


def suspected(*events: Event, **options: Any) -> Playbook:
    """A turn whose path has been suspected after 30 seconds."""
    play = Playbook(**options)
    for event in events:
        play >> event
    return play >> path(Suspected(20), after=30)


@BEFORE_OUTPUT
class TestBeforeOutput:
    def test_a_second_connection_is_tried_and_the_request_sent_on_it_after_its_time(
        self, events: tuple[Event, ...], phase: Phase
    ) -> None:
        play = suspected(*events)
        play << tells(TRYING) << waits(probe=30)
        play >> path(SecondStands(), after=2)
        play << tells("no answer from the path for 22 s, a second connection stands: the first has 30 s to come back")
        play << waits(revive=62)
        play >> is_lost(Failure.DEAD_PATH, after=30) << again("replay", delay=0)
        assert play.attempts[0].phase is phase
        play >> answers() >> brings(ROLE + text("Hi")) << speaks(ROLE + text("Hi"))

    def test_the_first_one_comes_back_and_nothing_is_sent_again(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events) << tells(TRYING)
        play >> path(SecondStands(), after=1)
        play << tells("no answer from the path for 21 s, a second connection stands: the first has 30 s to come back")
        play >> path(Recovered(), after=9) << tells("the path answers again, after 30 s") << waits()
        for event in (answers(), brings(ROLE))[len(events) :]:
            play >> event
        play >> brings(text("Hi"))
        assert len(play.attempts) == 0
        assert play.turn.suspicion(play.now) == ""

    def test_while_the_network_is_away_it_is_waited_for(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events) << tells(TRYING)
        (
            play
            >> path(NO_ROUTE)
            << tells("no answer from the path for 20 s, waiting for the network")
            << waits(probe=30.5)
        )
        for step in (1, 2, 4, 8, 15, 15):
            play >> path(NO_ROUTE, after=1) << waits(probe=play.elapsed + step)  # without another word
        assert play.turn.suspicion(play.now) == "no answer from the path for 26 s, waiting for the network"
        play >> path(Recovered(), after=60) << tells("the path answers again, after 86 s") << waits()

    def test_each_suspicion_begins_anew(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events) << tells(TRYING)
        play >> path(NO_ROUTE) << tells("no answer from the path for 20 s, waiting for the network")
        play >> path(Recovered()) << tells("the path answers again, after 20 s")
        play >> path(Suspected(20), after=30) << tells(TRYING) << waits(probe=60)

    @pytest.mark.parametrize(
        "options", [{"replays": 0}, {"acts": True}, {"single_attempt": True}], ids=["none", "acts", "an SDK's retry"]
    )
    def test_where_nothing_may_be_sent_again_nothing_is_tried(
        self, events: tuple[Event, ...], phase: Phase, options: dict[str, Any]
    ) -> None:
        play = suspected(*events, **options) << tells(STILL) << waits()
        play >> is_lost(Failure.IDLE_TIMEOUT, after=600) << fails(StreamCut)

    def test_where_no_second_one_can_prove_anything_none_is_tried(
        self, events: tuple[Event, ...], phase: Phase
    ) -> None:
        play = Playbook()
        for event in events:
            play >> event
        play >> path(Suspected(20, provable=False), after=30) << tells(STILL) << waits()
        play >> is_lost(Failure.IDLE_TIMEOUT, after=570) << again("replay", delay=0)

    def test_the_limit_for_the_first_output_holds(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events) << tells(TRYING)
        play >> path(NO_ROUTE) << tells("no answer from the path for 20 s, waiting for the network")
        play >> is_lost(Failure.DEADLINE, after=870) << fails(FirstOutputTimeout)

    def test_after_the_last_attempt_may_start_nothing_is_tried(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events, give_up_after=40) << tells(TRYING) << waits(probe=30)
        play >> path(SecondStands(), after=5) << tells("no answer from the path for 25 s, still waiting") << waits()

    def test_the_patience_is_the_callers_to_choose(self, events: tuple[Event, ...], phase: Phase) -> None:
        play = suspected(*events, revive=3) << tells(TRYING)
        play >> path(SecondStands())
        play << tells("no answer from the path for 20 s, a second connection stands: the first has 3 s to come back")
        play << waits(revive=33)


class TestAfterOutput:
    def test_it_is_waited_for(self) -> None:
        play = prelude() >> brings(text("Hi")) << speaks(ROLE + text("Hi"))
        play >> path(Suspected(20), after=30) << tells(STILL) << waits()
        play >> path(Recovered(), after=600) << tells("the path answers again, after 620 s") << waits()
        play >> brings(STOP + DONE) << Give(STOP + DONE)
        assert len(play.attempts) == 0

    def test_and_lost_at_the_limit(self) -> None:
        play = prelude() >> brings(text("Hi")) << speaks(ROLE + text("Hi"))
        play >> path(Suspected(20), after=30) << tells(STILL)
        play >> is_lost(Failure.IDLE_TIMEOUT, after=570) << fails(StreamCut, "nothing for 600 s")

    def test_once_it_has_settled_nothing_is_told_and_the_wait_is_no_longer(self) -> None:
        play = prelude() >> brings(text("Hi")) << speaks(ROLE + text("Hi"))
        play >> brings(STOP) << Give(STOP)
        before = play.turn.next()
        play >> path(Suspected(20), after=10)
        assert play.turn.next() == before
        play >> ends() << EndTurn()


class TestOfARefusal:
    def test_nothing_is_tried(self) -> None:
        play = Playbook() >> answers(429)
        before = play.turn.next()
        play >> path(Suspected(20), after=1)
        assert play.turn.next() == before


class TestTheNextAttempt:
    def test_is_no_suspect(self) -> None:
        play = suspected() << tells(TRYING)
        play >> is_lost(Failure.RESET, after=1) << again("replay", delay=0)
        assert play.turn.suspicion(play.now) == ""
        play >> answers() << waits()


class TestWithoutRetries:
    """0 means none, also where the network is away."""

    @pytest.mark.parametrize("failure", [Failure.NO_ROUTE, Failure.CONNECT_TIMEOUT, Failure.DNS_TEMPORARY])
    def test_the_network_is_not_waited_for(self, failure: Failure) -> None:
        play = Playbook(retries=0) >> answers() >> is_lost(Failure.RESET, after=10) << again("replay", delay=0)
        play >> is_unreachable(failure) << fails(Unreachable, "no retries allowed")

    def test_one_retry_is_enough_to_wait(self) -> None:
        play = Playbook(retries=1, give_up_after=math.inf) >> answers() >> is_lost(Failure.RESET)
        play << again("replay", delay=0)
        for delay in (0.5, 1, 2, 4, 8, 15, 15):
            play >> is_unreachable(Failure.NO_ROUTE) << again("retry", delay=delay)


class TestSeveralPaths:
    """A second connection is tried over each path in turn, and the request follows the one that stands."""

    def probed(self, play: Playbook) -> int | None:
        action = play.turn.next()
        assert isinstance(action, Read)
        return action.limits.probe_path

    def suspected(self) -> Playbook:
        paths = Paths((PathName("http://a.test"), PathName("http://b.test")))
        return Playbook(paths=paths) >> path(Suspected(20), after=30) << tells(TRYING)

    def test_the_next_one_stands(self) -> None:
        play = self.suspected()
        assert self.probed(play) == 0
        play >> path(SecondFailed(Failure.CONNECT_TIMEOUT), after=10)
        play << tells("no answer from the path for 30 s, waiting for the network")
        assert self.probed(play) == 1
        play >> path(SecondStands(), after=1)
        play << tells("no answer from the path for 31 s, a second connection stands: the first has 30 s to come back")
        play >> is_lost(Failure.DEAD_PATH, after=30)
        assert [action.path for action in play.rest() if isinstance(action, Send)] == [1]

    def test_the_same_one_stands(self) -> None:
        play = self.suspected() >> path(SecondStands())
        play << tells("no answer from the path for 20 s, a second connection stands: the first has 30 s to come back")
        play >> is_lost(Failure.DEAD_PATH, after=30)
        assert [action.path for action in play.rest() if isinstance(action, Send)] == [0]

    def test_the_first_comes_back(self) -> None:
        play = self.suspected() >> path(NO_ROUTE)
        play << tells("no answer from the path for 20 s, waiting for the network")
        play >> path(SecondStands())
        play << tells("no answer from the path for 20 s, a second connection stands: the first has 30 s to come back")
        play >> path(Recovered()) << tells("the path answers again, after 20 s")
        play >> is_lost(Failure.RESET)
        assert [action.path for action in play.rest() if isinstance(action, Send)] == [0]
