"""A turn in virtual time: a server is asked, does what it does step by step, and what the caller gets is kept.

This is the one loop of the tests that play whole turns; what their servers do, and what is right, is theirs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from unbroken.client.reading import TurnReader
from unbroken.core.actions import Action, EndTurn, Fail, Give, GiveHead, Limits, Read, Restart, Send, Wait
from unbroken.core.events import Restarted, TypedEvent
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.report import Report
from unbroken.core.suspicion import PathEvent
from unbroken.core.turn import Turn
from unbroken.errors import TurnError

STREAM = Head(200, ((b"content-type", b"text/event-stream"),))
JSON = ((b"content-type", b"application/json"),)

Step: TypeAlias = Head | bytes | float | Failure | PathEvent
"""The head, bytes of the body, seconds in which nothing comes, how the exchange is lost, or an event of its path."""

Server: TypeAlias = Callable[[Request, int], Iterable[Step]]
"""What a server does about a request, given its number; after the last step the body ends cleanly."""

MAX_ACTIONS = 20_000
MAX_REQUESTS = 500


def sliced(body: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut a body into pieces of these sizes, again and again."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(body):
            return
        yield body[at : at + size]
        at += size


@dataclasses.dataclass
class Played:
    """What came of a turn.

    Attributes:
        request: the caller's.
        requests: what was sent.
        starts: when each was.
        deliveries: the bytes of the body that came of each.
        after_output: how much of an answer the caller had when each was sent, in bytes.
        head: what the caller got.
        received: the bytes that the caller got, since the last restart.
        spoke: number of the attempt whose bytes came last.
        withheld: how many bytes of one attempt had come at most while the caller had nothing.
        error: how the turn failed, ``None`` if it did not.
        left: whether the caller left before the end.
        report: of the turn.
        typed_events: the events of a reader, where there is one.
    """

    request: Request
    report: Report
    requests: list[Request] = dataclasses.field(default_factory=list)
    starts: list[float] = dataclasses.field(default_factory=list)
    deliveries: list[bytearray] = dataclasses.field(default_factory=list)
    after_output: list[int] = dataclasses.field(default_factory=list)
    head: Head | None = None
    received: bytes = b""
    spoke: int = 0
    withheld: int = 0
    error: TurnError | None = None
    left: bool = False
    typed_events: list[TypedEvent] = dataclasses.field(default_factory=list)


class Player:
    """Plays one turn.

    Args:
        turn: the turn.
        request: the caller's.
        server: what answers.
        reader: reads what the caller gets, if anything does.
        played: what is filled in.
        pours: whether bytes go through while output flows, as drivers do it.
        leaves_at: before which action the caller leaves; negative for never.
    """

    def __init__(
        self,
        turn: Turn,
        request: Request,
        server: Server,
        *,
        reader: TurnReader | None = None,
        played: Played | None = None,
        pours: bool = False,
        leaves_at: int = -1,
    ) -> None:
        self._turn = turn
        self._server = server
        self._reader = reader
        self._pours = pours
        self._leaves_at = leaves_at
        self._steps: Iterator[Step] = iter(())
        self._sent = False
        self._now = 0.0
        self.played = played or Played(request, turn.report)

    def run(self) -> Played:
        """Play it to its end."""
        turn, played = self._turn, self.played
        for number in range(MAX_ACTIONS):
            if number == self._leaves_at:
                recorded = len(turn.report.attempts)
                turn.cancelled(self._now, sent=self._sent)
                played.left = len(turn.report.attempts) > recorded  # otherwise it was over already
            action = turn.next()
            if isinstance(action, EndTurn | Fail):
                self._end(action)
                return played
            assert not played.left, "whoever has left is told nothing more"
            self._obey(action)
        raise AssertionError("a turn ends")

    def _end(self, action: EndTurn | Fail) -> None:
        assert self._turn.next() == action, "it ends once"
        played = self.played
        played.report = self._turn.report
        if isinstance(action, Fail):
            played.error = action.error
        elif self._reader and not played.left:
            played.typed_events += self._reader.end(self._turn.phase)

    def _obey(self, action: Action) -> None:
        played = self.played
        match action:
            case Send(_, limits, _, other):
                self._send(other or played.request, limits)
            case Read(limits):
                self._read(limits)
            case Give(data):
                self._give(data)
            case Wait(seconds):
                self._now += seconds
            case GiveHead(head):
                assert played.head is None, "the head comes once"
                played.head = head
                if self._reader:
                    self._reader.open(head, is_stream=self._turn.is_stream)
            case Restart(attempt):
                played.received = b""
                self._turn.restarted(self._reader.restart(attempt) if self._reader else Restarted(attempt, 0))
            case _:
                pass

    def _give(self, data: bytes) -> None:
        played = self.played
        assert played.head is not None, "the head comes before the bytes"
        played.received += data
        played.spoke = len(played.requests)
        if self._reader:
            played.typed_events += self._reader.feed(data, self._turn.phase)

    def _send(self, request: Request, limits: Limits) -> None:
        played = self.played
        assert len(played.requests) < MAX_REQUESTS, "a turn asks for ever"
        is_answer = played.head is not None and played.head.status < 300
        played.after_output.append(len(played.received) if is_answer else 0)
        played.requests.append(request)
        played.starts.append(self._now)
        played.deliveries.append(bytearray())
        self._steps = iter(self._server(request, len(played.requests)))
        self._sent = False
        self._read(limits)

    def _read(self, limits: Limits) -> None:
        """Let time pass until something comes, or a limit expires."""
        if self.played.head is None:
            self.played.withheld = max(self.played.withheld, len(self.played.deliveries[-1]))
        for step in self._steps:
            if not isinstance(step, float):
                self._sent = self._sent or not isinstance(step, Failure)
                self._take(step)
                return
            self._sent = True
            if lost := self._expired(step, limits):
                self._turn.lost(lost, "", self._now, sent=True, silent=step)
                return
        self._turn.end(self._now)

    def _expired(self, seconds: float, limits: Limits) -> Failure | None:
        """Let seconds pass in which nothing comes; return the limit that expires first in them, if one does."""
        silent = {Failure.IDLE_TIMEOUT: limits.idle, Failure.STALLED: limits.stall}
        ends = {failure: self._now + limit for failure, limit in silent.items() if limit is not None}
        at = {Failure.DEADLINE: limits.until, Failure.DEAD_PATH: limits.revive}
        ends |= {failure: max(limit, self._now) for failure, limit in at.items() if limit is not None}
        if ends and (first := min(ends, key=ends.__getitem__)) and ends[first] <= self._now + seconds:
            self._now = ends[first]
            return first
        self._now += seconds
        return None

    def _take(self, step: Step) -> None:
        turn, now = self._turn, self._now
        match step:
            case bytes():
                self.played.deliveries[-1] += step
                if not self._pours or turn.flowing is None:
                    turn.data(step, now)
                elif given := turn.pour(step, now):
                    self._give(given)
            case Head():
                turn.head(step, now)
            case Failure():
                turn.lost(step, "", now, sent=self._sent, silent=2.0)
            case _:
                turn.noticed(step, now)
