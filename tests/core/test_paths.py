"""Which path an attempt takes, as playbooks in virtual time; and what is remembered of it."""

from __future__ import annotations

import pytest

from core.playbook import (
    ANSWER,
    OVERLOADED,
    ROLE,
    START,
    Playbook,
    again,
    answers,
    brings,
    ends,
    fails,
    is_lost,
    is_unreachable,
    speaks,
)
from unbroken.core.actions import Action, EndTurn, Fail, Prefer, Wait
from unbroken.core.failures import PROXY_FAILURES, Failure, Phase, Row
from unbroken.core.paths import MOST, REMEMBERED, PathChoice, PathMemory, PathName, Paths, told_by_path
from unbroken.errors import Unreachable

F = Failure
PROXY, OTHER, DIRECT = PathName("http://p.test:1", "--proxy"), PathName("socks5h://q.test:2"), PathName("direct")
TWO, THREE = (PROXY, DIRECT), (PROXY, OTHER, DIRECT)

COUNTED = [failure for failure in Failure if failure.row is Row.LOST and failure not in (F.TOO_MANY_PINGS, F.STALLED)]
AT_ONCE = [
    *(failure for failure in Failure if failure.row is Row.UNREACHABLE),
    F.NO_SUCH_HOST,
    *sorted(PROXY_FAILURES, key=str),
]
NOT_THE_PATHS = [
    F.BUSY,
    F.GATEWAY_GAVE_UP,
    F.TRANSIENT_ERROR,
    F.PERMANENT_ERROR,
    F.NOT_PROCESSED,
    F.TOO_MANY_PINGS,
    F.DEADLINE,
    F.CALLER_TIMEOUT,
    F.CERTIFICATE,
    F.TLS_MISMATCH,
]


def route(*names: PathName, first: int = 0) -> PathChoice:
    return PathChoice(Paths(names, first))


def play(*names: PathName, first: int = 0, **policy: object) -> Playbook:
    return Playbook(paths=Paths(names, first), **policy)


class TestRoute:
    @pytest.mark.parametrize("phase", [Phase.HEADERS, Phase.PRELUDE])
    @pytest.mark.parametrize("failure", COUNTED)
    def test_two_losses_before_output(self, failure: Failure, phase: Phase) -> None:
        way = route(*TWO)
        assert not way.lose(failure, phase)
        assert way.index == 0
        assert way.lose(failure, phase)
        assert (way.index, way.name, way.moved) == (1, DIRECT, True)

    @pytest.mark.parametrize("failure", dict.fromkeys(AT_ONCE))
    def test_at_once_without_a_connection(self, failure: Failure) -> None:
        way = route(*TWO)
        assert way.lose(failure, Phase.CONNECT)
        assert way.index == 1

    @pytest.mark.parametrize("failure", [F.RESET, F.CLOSED, F.TLS_FAILED])
    def test_at_once_if_it_was_cut_before_the_request(self, failure: Failure) -> None:
        assert route(*TWO).lose(failure, Phase.CONNECT)

    @pytest.mark.parametrize("failure", NOT_THE_PATHS)
    def test_never_for_what_says_nothing_of_the_path(self, failure: Failure) -> None:
        way = route(*TWO)
        for _ in range(5):
            assert not way.lose(failure, Phase.HEADERS)
        assert way.index == 0

    def test_a_single_path_is_never_left(self) -> None:
        way = route(PROXY)
        for failure in (F.PROXY_UNREACHABLE, F.RESET, F.RESET, F.RESET):
            assert not way.lose(failure, Phase.CONNECT)
        assert way.name == PROXY

    def test_in_order_and_round(self) -> None:
        way = route(*THREE, first=1)
        taken = []
        for _ in range(4):
            way.lose(F.CONNECTION_REFUSED, Phase.CONNECT)
            taken.append(way.index)
        assert taken == [2, 0, 1, 2]

    def test_what_cannot_work_is_not_tried_again(self) -> None:
        way = route(*THREE)
        assert way.lose(F.PROXY_AUTH, Phase.CONNECT)
        assert way.lose(F.PROXY_CANNOT_REACH, Phase.CONNECT)
        assert way.index == 2
        assert way.lose(F.CONNECTION_REFUSED, Phase.CONNECT)
        assert way.index == 1
        assert way.lose(F.PROXY_PROTOCOL, Phase.CONNECT)
        assert way.index == 2
        assert way.successor(F.CONNECTION_REFUSED, Phase.CONNECT) is None

    def test_the_losses_of_each_path_are_counted_apart(self) -> None:
        way = route(*TWO)
        assert [way.lose(F.RESET, Phase.PRELUDE) for _ in range(4)] == [False, True, False, True]


class TestMemory:
    def test_for_an_hour(self) -> None:
        memory = PathMemory()
        memory.prefer("server", 1, 100.0)
        assert memory.first("server", 100.0 + REMEMBERED - 1) == 1
        assert memory.first("another", 100.0) == 0
        assert memory.first("server", 100.0 + REMEMBERED) == 0

    def test_the_preferred_path_is_no_memory(self) -> None:
        memory = PathMemory()
        memory.prefer("server", 1, 100.0)
        memory.prefer("server", 0, 101.0)
        assert memory.first("server", 102.0) == 0

    def test_is_bounded(self) -> None:
        memory = PathMemory()
        for server in range(2 * MOST):
            memory.prefer(server, 1, 100.0)
        assert sum(memory.first(server, 101.0) for server in range(2 * MOST)) == MOST


class TestTurn:
    def test_the_third_attempt_after_two_cuts(self) -> None:
        it = play(*TWO)
        for path in ("", "direct"):
            it >> answers() >> brings(ROLE) >> is_lost(F.RESET, after=60) << again("replay", delay=0, path=path)
        it >> answers() << Prefer(1)
        it >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()
        assert [attempt.path for attempt in it.attempts] == [PROXY.name, PROXY.name, "direct"]
        assert [attempt.path_source for attempt in it.attempts] == ["--proxy", "--proxy", ""]

    def test_without_a_second_path_nothing_is_new(self) -> None:
        it = play(PROXY)
        it >> is_lost(F.RESET, after=60) << again("replay", delay=0, path="")
        it >> is_lost(F.RESET, after=60) << again("replay", delay=0.5, path="")
        it >> answers() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()

    def test_a_proxy_that_is_not_there(self) -> None:
        it = play(*TWO) >> is_unreachable(F.PROXY_UNREACHABLE) << again("retry", delay=0, path="direct")
        it >> answers() << Prefer(1) >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()

    def test_what_would_be_an_error_at_once(self) -> None:
        it = play(*TWO) >> is_unreachable(F.PROXY_PROTOCOL) << again("retry", delay=0, path="direct")
        it >> answers() << Prefer(1) >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()

    def test_and_is_one_where_every_path_is_closed(self) -> None:
        it = play(PROXY, OTHER)
        it >> is_lost(F.PROXY_AUTH, sent=False, detail="the proxy at http://p.test:1 asks")
        it << again("retry", delay=0, path=OTHER.name)
        it >> is_lost(F.NO_SUCH_HOST, sent=False)
        it << fails(Unreachable, "socks5h://q.test:2: no such host; the proxy at http://p.test:1 asks", retryable=False)

    def test_a_slow_path_does_not_use_up_the_time_of_the_next(self) -> None:
        it = play(*TWO) >> is_unreachable(F.CONNECT_TIMEOUT, after=10.1) << again("retry", delay=0, path="direct")
        it >> is_unreachable(F.CONNECT_TIMEOUT, after=10.1)
        it << fails(Unreachable, "tried for 10 s, the limit of Policy.unreachable_for; 2 attempts in all")

    def test_paths_that_nobody_answers_on_are_tried_for_a_while(self) -> None:
        it = play(*TWO)
        done: list[Action] = []
        while not done or not isinstance(done[-1], Fail):
            it >> is_unreachable(F.CONNECTION_REFUSED)
            done = it.rest()
            it.now += sum(action.seconds for action in done if isinstance(action, Wait))
        assert 9 <= it.now - START <= 11
        assert {attempt.path for attempt in it.attempts} == {PROXY.name, "direct"}

    def test_begins_with_the_path_that_is_remembered(self) -> None:
        it = play(*TWO, first=1)
        it >> is_unreachable() << again("retry", delay=0, path=PROXY.name)
        it >> answers() << Prefer(0) >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()

    def test_what_the_provider_says_is_not_the_paths(self) -> None:
        it = play(*TWO)
        it >> answers(503) >> brings(b"") >> ends() << again("retry", delay=0.5, path="")
        it >> answers() >> brings(OVERLOADED) << again("replay", delay=1.0, path="")
        it >> answers() >> brings(OVERLOADED) << again("replay", delay=2.0, path="")
        it >> answers() >> brings(ANSWER) << speaks(ANSWER) >> ends() << EndTurn()

    def test_a_retry_of_an_sdk_stays(self) -> None:
        it = play(*TWO, single_attempt=True) >> is_unreachable(F.PROXY_UNREACHABLE)
        it << fails(Unreachable, "no retries allowed")

    def test_an_error_status_proves_nothing_of_the_path(self) -> None:
        it = play(*TWO) >> is_unreachable(F.PROXY_UNREACHABLE) << again("retry", delay=0, path="direct")
        it >> answers(502) >> brings(b"") >> ends() << again("retry", delay=0.5, path="")


def test_the_latest_failure_of_each_path_is_told() -> None:
    losses = [("a", "one"), ("direct", "two"), ("a", "of a: three")]
    assert told_by_path(losses) == "of a: three; direct: two"
    assert told_by_path(losses[:1]) == "one"
