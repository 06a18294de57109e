"""Playbooks, after mitmproxy's: a scenario reads as *this happens* (``>>``), *then that is done* (``<<``).

::

    play = Playbook()
    play >> answers() >> brings(ROLE) >> is_lost(Failure.RESET, after=60)
    play << again("replay", delay=0)
    play >> answers() >> brings(ROLE + text("Hi")) << speaks(ROLE + text("Hi"))

Time is virtual: an event may come ``after`` some seconds, and a wait that the turn asks for passes at once. Whatever a
turn does must be mentioned, but for its mere sending and reading, which the next event takes for granted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

from unbroken.core.actions import (
    Action,
    Drop,
    EndTurn,
    Fail,
    Give,
    GiveHead,
    LowerPing,
    Notify,
    PathNotice,
    Read,
    Restart,
    RetryEvent,
    Send,
    Wait,
)
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects import recognise
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.events import Restarted
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.paths import Paths
from unbroken.core.policy import Policy
from unbroken.core.report import AttemptReport, Report
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.core.route import RouteRecord
from unbroken.core.sse import encode
from unbroken.core.suspicion import PathEvent
from unbroken.core.turn import Turn
from unbroken.errors import TurnError

START = 1000.0
"""When every playbook begins, on its own clock."""

WALL_CLOCK = 1_800_000_000.0
"""The same moment, in seconds since the epoch: Fri, 15 Jan 2027 08:00:00 GMT."""


# What is said in a stream


def chunk(**fields: Any) -> bytes:
    return encode(json.dumps({"id": "chatcmpl-1", **fields}))


def delta(finish_reason: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return chunk(choices=[{"index": index, "delta": fields, "finish_reason": finish_reason}])


def text(words: str, index: int = 0) -> bytes:
    """A piece of the answer: output."""
    return delta(content=words, index=index)


def error(kind: str) -> bytes:
    return chunk(error={"type": kind, "message": "the provider's words"})


COMMENT = b": keep-alive\n\n"
ROLE = delta(role="assistant", content="")
STOP = delta("stop")
USAGE = chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1})
DONE = b"data: [DONE]\n\n"
OVERLOADED = error("overloaded_error")
INVALID = error("invalid_request_error")
BROKEN = b"data: {not JSON\n\n"
ANSWER = ROLE + text("Hello") + STOP + DONE


# What happens


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that a driver tells a turn, some seconds after what was before."""

    tell: Callable[[Turn, float], None]
    after: float
    answers_to: tuple[type, ...]


def answers(
    status: int = 200,
    content_type: str = "text/event-stream",
    *,
    after: float = 0.0,
    http_version: str = "HTTP/2",
    route: RouteRecord | None = None,
    **headers: str,
) -> Event:
    """The headers of the response come."""
    fields = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    encoded = tuple((name.encode(), value.encode()) for name, value in fields.items())
    return Event(lambda turn, now: turn.head(Head(status, encoded, http_version), now, route), after, (Send, Read))


def brings(data: bytes, *, after: float = 0.0) -> Event:
    """Bytes of the body come."""
    return Event(lambda turn, now: turn.data(data, now), after, (Read,))


def ends(*, after: float = 0.0, silent: float = 0.0) -> Event:
    """The body ends cleanly."""
    return Event(lambda turn, now: turn.end(now, silent), after, (Read,))


def is_lost(
    failure: Failure,
    *,
    after: float = 0.0,
    sent: bool = True,
    silent: float = 0.0,
    detail: str = "",
    route: RouteRecord | None = None,
) -> Event:
    """The exchange fails."""
    return Event(
        lambda turn, now: turn.lost(failure, detail, now, sent=sent, silent=silent or after, route=route),
        after,
        (Send, Read),
    )


def is_unreachable(failure: Failure = Failure.CONNECTION_REFUSED, *, after: float = 0.0) -> Event:
    """The exchange fails before anything was sent."""
    return is_lost(failure, after=after, sent=False)


def path(event: PathEvent, *, after: float = 0.0) -> Event:
    """The wire reports something of the path."""
    return Event(lambda turn, now: turn.noticed(event, now), after, (Send, Read))


def is_cancelled(*, after: float = 0.0, sent: bool = True) -> Event:
    """The caller leaves."""
    return Event(lambda turn, now: turn.cancelled(now, sent=sent), after, ())


# What is done

Check = Callable[[Action, "Playbook"], None]


def sends(attempt: int, *, until: float | None = None) -> list[Check]:
    """An attempt begins."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Send), action
        assert action.attempt == attempt
        assert until is None or action.limits.until == START + until

    return [check]


def reads(*, until: float | None) -> list[Check]:
    """The body is read, no longer than that many seconds after the start."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Read), action
        assert action.limits.until == (None if until is None else START + until)

    return [check]


def again(
    action: str,
    *,
    delay: float,
    attempt: int | None = None,
    of: int | None = None,
    failure: Failure | None = None,
    advice: str | None = None,
    ping: float | None = None,
    path: str | None = None,
) -> list[Check]:
    """The attempt is dropped, the observer is told, and after a wait the next one begins."""

    def told(done: Action, play: Playbook) -> None:
        assert isinstance(done, Notify), done
        event = done.event
        assert isinstance(event, RetryEvent), event
        assert (event.action, event.delay) == (action, delay)
        assert event.lost == play.attempts[-1]
        assert event.attempt == event.lost.number == (attempt or event.attempt)
        assert event.of == (of or event.of)
        assert event.failure is (failure or event.failure)
        assert event.failure.code == event.lost.failure
        assert advice is None or advice in event.advice
        assert path is None or event.path == path

    def sent(done: Action, play: Playbook) -> None:
        assert isinstance(done, Send), done
        assert done.attempt == play.attempts[-1].number + 1

    lowered = [] if ping is None else done(LowerPing(ping))
    return [*lowered, *done(Drop()), told, *done(Wait(delay)), sent]


def tells(words: str) -> list[Check]:
    """The observer is told that something else is waited for."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Notify), action
        assert isinstance(action.event, PathNotice), action
        assert action.event.text == words

    return [check]


def waits(*, probe: float | None = None, revive: float | None = None) -> list[Check]:
    """The response is read on; when a second connection is tried, or the path given up, in seconds after the start."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Read), action
        asked = [None if at is None else at - START for at in (action.limits.probe, action.limits.revive)]
        assert asked == [probe, revive]

    return [check]


def speaks(data: bytes, status: int = 200) -> list[Check]:
    """The head and what was held are handed on."""
    return [*gives_head(status), *done(Give(data))]


def begins_again(data: bytes, attempt: int, character: int = 0) -> list[Check]:
    """The caller is told that the answer begins again, and what was held of the new attempt is handed on."""

    def check(action: Action, play: Playbook) -> None:
        assert action == Restart(attempt)
        play.turn.restarted(Restarted(attempt, character))

    return [check, *done(Give(data))]


def gives_head(status: int = 200) -> list[Check]:
    """The head is handed on."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, GiveHead), action
        assert action.head.status == status
        play.head = action.head

    return [check]


def fails(kind: type[TurnError], words: str = "", *, retryable: bool | None = None) -> list[Check]:
    """The exchange is dropped and the caller gets an error, with the report on it."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Fail), action
        assert type(action.error) is kind, action.error
        assert words in str(action.error)
        assert action.error.report == play.report
        assert action.error.phase == play.attempts[-1].phase
        assert retryable is None or action.error.retryable is retryable
        play.error = action.error

    return [*done(Drop()), check]


def done(*actions: Action) -> list[Check]:
    """Exactly these."""

    def exactly(expected: Action) -> Check:
        def check(action: Action, play: Playbook) -> None:
            assert action == expected

        return check

    return [exactly(action) for action in actions]


class Playbook:
    """One turn on a stage.

    Args:
        streaming, choices, acts, single_attempt: what is asked, see :class:`unbroken.core.dialect.Call`.
        may_restart: whether the caller can be told that its answer begins again.
        request: what is asked, instead of those.
        kept_at: the relay at which a response that is kept is taken up.
        refused: the servers that have refused to let a response go on.
        paths: the paths to the server.
        jitter: what the random source always says; 0 gives the longest waits.
        policy: limits that differ from the usual ones.
    """

    def __init__(
        self,
        *,
        streaming: bool = True,
        choices: int = 1,
        acts: bool = False,
        single_attempt: bool = False,
        may_restart: bool = False,
        request: Request | None = None,
        kept_at: str | None = None,
        refused: RefusedBackgrounds | None = None,
        paths: Paths = Paths(),  # noqa: B008 - frozen
        jitter: float = 0.0,
        **policy: Any,
    ) -> None:
        call = Call(OPENAI_CHAT, Generation(streaming, choices, acts), single_attempt)
        if request:
            recognised = recognise(request)
            assert recognised is not None
            call = recognised
        self.now = START
        self.head: Head | None = None
        self.error: TurnError | None = None
        self.turn = Turn(
            call,
            Policy(**policy),
            now=START,
            random=lambda: jitter,
            wall_clock=lambda: WALL_CLOCK + self.now - START,
            paths=paths,
            may_restart=may_restart,
            request=request,
            kept_at=kept_at,
            refused=refused,
        )
        self._asked: Action | None = None

    @property
    def report(self) -> Report:
        return self.turn.report

    @property
    def attempts(self) -> tuple[AttemptReport, ...]:
        return self.report.attempts

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now - START

    def rest(self) -> list[Action]:
        """What is done until the driver has to send, to read, or to stop."""
        actions = [self.turn.next()]
        while not isinstance(actions[-1], Send | Read | EndTurn | Fail):
            actions.append(self.turn.next())
        return actions

    def __rshift__(self, event: Event) -> Playbook:
        """This happens."""
        if event.answers_to:
            asked = self._asked or self.turn.next()
            assert isinstance(asked, event.answers_to), f"this is done first, and not mentioned: {asked}"
        self._asked = None
        self.now += event.after
        event.tell(self.turn, self.now)
        return self

    def __lshift__(self, expected: Action | Iterable[Check]) -> Playbook:
        """Then that is done."""
        for check in expected if isinstance(expected, Iterable) else done(expected):
            action = self._asked or self.turn.next()
            check(action, self)
            self._asked = action if isinstance(action, Send | Read) else None
            if isinstance(action, Wait):
                self.now += action.seconds
            if isinstance(action, EndTurn | Fail):
                assert self.turn.next() == action, "after the end nothing more is done"
        return self
