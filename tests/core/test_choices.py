"""Every cell of the failure table by the caller's choice, in virtual time: every failure, every dialect."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from choices import (
    CELLS,
    CHOICES,
    FAILURES,
    FOLLOWING,
    FOLLOWING_FAILURES,
    PLACES,
    WIRES,
    Cell,
    Outcome,
    Wire,
    answer_of,
    before_place,
)
from unbroken.core.actions import EndTurn, Fail, Give, GiveHead, Notify, Read, Restart, RetryEvent, Send, Wait
from unbroken.core.dialects import recognise
from unbroken.core.events import Restarted, Text
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import AttemptReport, Report
from unbroken.core.sse import Parser
from unbroken.core.suspicion import Recovered, SecondStands, Suspected
from unbroken.core.turn import Turn
from unbroken.errors import CallerTimeout, StreamCut, TurnError
from unbroken.lab import Continuation
from unbroken.lab.dialect import Pieces

EVENTS = Head(200, ((b"content-type", b"text/event-stream"),))
MAX_EVENT = 20_000

AFTER_OUTPUT = {Failure.MISFIT, Failure.TLS_FAILED, Failure.UNFINISHED}
"""Losses of other phases; and the clean end, which is no failure that a wire tells."""

LOSSES = [failure for failure in Failure if failure.row is Row.LOST and failure not in AFTER_OUTPUT]

Happening = Callable[["Stage"], None]
"""What happens to the first attempt; the rest of its stream follows if the turn reads on."""


@dataclasses.dataclass
class Stage:
    """A turn of which the first attempt fails at a place, and the others answer.

    Attributes:
        sent: what the first attempt has sent.
        received: what the caller has of the attempt it reads.
        void: what it had before an answer began again.
    """

    wire: Wire
    cell: Cell
    policy: Policy
    now: float = 0.0
    sent: bytes = b""
    received: bytes = b""
    void: bytes = b""
    whole: bytes = b""
    requests: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    told: list[str] = dataclasses.field(default_factory=list)
    last: EndTurn | Fail | None = None

    def __post_init__(self) -> None:
        body = json.dumps(self.wire.body | self.cell.fields).encode()
        self.request = Request("POST", f"https://llm.example.com{self.wire.path}", (), body)
        call = recognise(self.request)
        assert call is not None
        self.call = call
        self.turn = Turn(
            call,
            self.policy,
            now=0.0,
            random=lambda: 0.0,
            wall_clock=lambda: 0.0,
            request=self.request,
            continuation=self.wire.style,
            may_restart=True,
        )

    @property
    def report(self) -> Report:
        return self.turn.report

    @property
    def error(self) -> TurnError | None:
        return self.last.error if isinstance(self.last, Fail) else None

    @property
    def text(self) -> str:
        decoder, parser = self.call.dialect.decoder(), Parser()
        events = [one for event in parser.feed(self.received) for one in decoder.decode(event)]
        return "".join(event.text for event in events if isinstance(event, Text))

    def play(self, happening: Happening, following: Happening | None = None) -> None:
        """Run the turn: the first attempt gets to the place, then that happens; ``following`` is the second attempt."""
        pieces = self._pieces(1)
        before = before_place(pieces, self.cell.place)
        rest, next_happening = iter([before]), iter([happening])
        steps = iter(range(1000))
        while self.last is None:
            next(steps)
            match self.turn.next():
                case Send(_, _, _, other):
                    sent = other or self.request
                    self.requests.append(json.loads(sent.body) if sent.body else parse_qs(urlsplit(sent.url).query))
                    if len(self.requests) == 2 and following:
                        rest = iter(())
                        following(self)
                        continue
                    self.turn.head(EVENTS, self.now)
                    if len(self.requests) > 1:
                        rest = self._answers(len(self.requests))
                case Read():
                    if (data := next(rest, None)) is not None:
                        self._send(data)
                    elif happens := next(next_happening, None):
                        rest = iter([_join(pieces)[len(before) :]])
                        happens(self)
                    else:
                        self.turn.end(self.now)
                case Wait(seconds):
                    self.now += seconds
                case Give(data):
                    self.received += data
                case Restart(attempt):
                    self.void, self.received = self.received, b""
                    self.turn.restarted(Restarted(attempt, 0))
                case GiveHead():
                    assert self.received == b""
                case Notify(event):
                    self.told += [event.action] if isinstance(event, RetryEvent) else []
                case EndTurn() | Fail() as last:
                    self.last = last

    def _send(self, data: bytes) -> None:
        if len(self.requests) == 1:
            self.sent += data
        self.turn.data(data, self.now)

    def _answers(self, number: int) -> Iterator[bytes]:
        position = self.requests[-1].get("starting_after")
        self.whole = _join(self._pieces(1 if position else number))
        return iter([_behind(self.whole, int(position[0])) if position else self.whole])

    def _pieces(self, number: int) -> Pieces:
        answer = answer_of(self.wire, self.cell.place)
        if self.wire.style and self.policy.after_output == "continue":
            server = Continuation(self.wire.style, prompt=self.wire.body.get("prompt", ""))
            answer = server.answer(answer, self.requests[-1] if self.requests else self.wire.body)
        return self.wire.server.pieces(answer, number)


def _behind(stream: bytes, position: int) -> bytes:
    """The events of a response behind the one with this number."""
    return stream[stream.index(b"\n\n", stream.index(b'"sequence_number": %d,' % position)) + 2 :]


def _join(pieces: Pieces) -> bytes:
    return b"".join([pieces.prelude, *pieces.reasoned, *pieces.told, pieces.finish, pieces.usage, pieces.done])


# What happens


def is_lost(failure: Failure) -> Happening:
    return lambda stage: stage.turn.lost(failure, "", stage.now, sent=True)


def ends_cleanly(stage: Stage) -> None:
    stage.turn.end(stage.now)


def is_suspected(stage: Stage) -> None:
    """A PING is unanswered. If a second connection is tried, it stands, and the first is given up; else the path
    answers again."""
    turn = stage.turn
    turn.noticed(Suspected(20.0), stage.now)
    asked = next(asked for asked in iter(turn.next, None) if isinstance(asked, Read | EndTurn))
    if isinstance(asked, EndTurn):
        return
    if asked.limits.probe is None:
        turn.noticed(Recovered(), stage.now)
        return
    turn.noticed(SecondStands(), stage.now)
    stage.now += stage.policy.revive
    turn.lost(Failure.DEAD_PATH, "", stage.now, sent=True)


def says(passes: bool) -> Happening:
    def happening(stage: Stage) -> None:
        members = {} if passes else stage.wire.will_not_pass
        stage._send(stage.wire.server.error_event(members))
        if not stage.report.attempts:
            stage.turn.end(stage.now)

    return happening


def is_malformed(stage: Stage) -> None:
    stage._send(stage.wire.server.malformed)


def is_too_large(stage: Stage) -> None:
    stage._send(b'data: {"filler": "' + b"x" * MAX_EVENT + b'"}\n\n')


def is_cancelled(stage: Stage) -> None:
    stage.turn.cancelled(stage.now, sent=True)


HAPPENINGS: dict[str, dict[str, Happening]] = {
    "lost": {**{failure.code: is_lost(failure) for failure in LOSSES}, "unfinished": ends_cleanly},
    "unprocessed": {"goaway": is_lost(Failure.NOT_PROCESSED)},
    "suspected": {"ping": is_suspected},
    "may_pass": {"error": says(True)},
    "will_not_pass": {"error": says(False)},
    "unreadable": {"malformed": is_malformed, "too large": is_too_large},
    "caller": {"timeout": is_lost(Failure.CALLER_TIMEOUT)},
    "cancelled": {"left": is_cancelled},
}


# What happens to the attempt that follows


def answers(status: int, content_type: str, body: bytes = b"") -> Happening:
    def happening(stage: Stage) -> None:
        stage.turn.head(Head(status, ((b"content-type", content_type.encode()),)), stage.now)
        if body and isinstance(stage.turn.next(), Read):
            stage.turn.data(body, stage.now)

    return happening


def then(happening: Happening) -> Happening:
    """The headers come, and then that."""

    def both(stage: Stage) -> None:
        stage.turn.head(EVENTS, stage.now)
        assert isinstance(stage.turn.next(), Read)
        happening(stage)

    return both


def is_late(stage: Stage) -> None:
    stage.now += stage.policy.first_output_timeout
    stage.turn.lost(Failure.DEADLINE, "", stage.now, sent=True)


def reasons(stage: Stage) -> None:
    pieces = stage.wire.server.pieces(answer_of(stage.wire, "reasoning"), 2)
    stage.turn.data(pieces.prelude + b"".join(pieces.reasoned), stage.now)


FOLLOWING_HAPPENINGS: dict[str, dict[str, Happening]] = {
    "unreachable": {
        failure.code: lambda stage, failure=failure: stage.turn.lost(failure, "", stage.now, sent=False)  # type: ignore[misc]
        for failure in (Failure.CONNECTION_REFUSED, Failure.NO_ROUTE, Failure.RESET)
    },
    "lost": {
        "before headers": is_lost(Failure.RESET),
        "after headers": then(is_lost(Failure.RESET)),
        "unfinished": then(ends_cleanly),
    },
    "busy": {str(status): answers(status, "application/json") for status in (429, 503, 529)},
    "gave_up": {str(status): answers(status, "application/json") for status in (504, 524)},
    "refused": {str(status): answers(status, "application/json") for status in (302, 400, 401, 404, 422)},
    "other_content": {"page": answers(200, "text/html", b"<html>log in</html>"), "empty": answers(204, "text/plain")},
    "may_pass": {"error": then(says(True))},
    "will_not_pass": {"error": then(says(False))},
    "unreadable": {"malformed": then(is_malformed), "too large": then(is_too_large)},
    "no_output": {"late": then(is_late)},
    "misfit": {"reasons": then(reasons)},
    "caller": {"timeout": then(is_lost(Failure.CALLER_TIMEOUT))},
    "cancelled": {"left": then(is_cancelled)},
}


# What is demanded


def check(stage: Stage, outcome: Outcome, lost: AttemptReport | None = None) -> None:
    """Demand what the table says. ``lost`` is an attempt between the first and the one that answers."""
    first = stage.report.attempts[0]
    match outcome:
        case Outcome.CUT:
            assert type(stage.error) is StreamCut
            assert (stage.error.phase, stage.error.report) == (Phase.OUTPUT, stage.report)
            assert stage.received == stage.sent
        case Outcome.REPLAY | Outcome.RETRY:
            assert stage.received == stage.whole
            assert first.held
            assert stage.told == [outcome.name.lower()]
        case Outcome.RESUME:
            assert stage.received == stage.whole
            assert stage.told[0] == "resume"
            assert len(stage.report.resumes) == 1
            assert stage.report.possibly_billed == 0
        case Outcome.CONTINUE:
            assert stage.text == "Blue, as light scatters."
            assert stage.received.startswith(stage.sent)
            assert stage.told[0] == "continue"
            assert [seam.character for seam in stage.report.seams] == [len("Blue, as")]
        case Outcome.RESTART:
            assert stage.void == stage.sent
            assert stage.received == stage.whole
            assert stage.told[0] == "restart"
            assert [restart.attempt for restart in stage.report.restarts] == [3 if lost else 2]
        case Outcome.HAND_ON | Outcome.THROUGH | Outcome.END | Outcome.WAIT:
            assert stage.received == stage.sent
        case Outcome.RAISE:
            assert type(stage.error) is CallerTimeout
        case Outcome.LEAVE:
            assert first.failure == ("cancelled" if first.phase is not Phase.COMPLETE else None)
    fails = outcome in (Outcome.CUT, Outcome.RAISE)
    again = outcome in (Outcome.RESUME, Outcome.REPLAY, Outcome.RETRY, Outcome.CONTINUE, Outcome.RESTART)
    assert isinstance(stage.last, Fail if fails else EndTurn)
    assert len(stage.requests) == 1 + again + bool(lost) == len(stage.report.attempts)
    assert len(stage.told) == len(stage.requests) - 1
    if outcome is Outcome.WAIT:
        assert (first.failure, first.phase) == (None, Phase.COMPLETE)


def check_following(stage: Stage, cell: Cell) -> None:
    first, second, *others = stage.report.attempts
    again = {
        Outcome.RETRY: "retry",
        Outcome.RESUME: "resume",
        Outcome.REPLAY: "continue" if cell.choice == "continue" else "replay",
    }
    assert first.failure == "reset"
    assert stage.told == [cell.choice, *([again[cell.outcome]] if cell.outcome in again else [])]
    assert len(stage.requests) == 2 + len(others)
    if cell.outcome in again:
        check(stage, Outcome[cell.choice.upper()], second)
        return
    assert others == []
    assert stage.received.startswith(stage.sent) if cell.outcome is Outcome.HAND_ON else stage.received == stage.sent
    assert (stage.report.seams, stage.report.restarts) == ((), ())
    match cell.outcome:
        case Outcome.CUT:
            assert type(stage.error) is StreamCut
            assert stage.error.phase is Phase.OUTPUT
            assert cell.choice == "resume" or "the answer was cut, and" in str(stage.error)
        case Outcome.HAND_ON:
            assert isinstance(stage.last, EndTurn)
        case Outcome.RAISE:
            assert type(stage.error) is CallerTimeout
        case Outcome.LEAVE:
            assert isinstance(stage.last, EndTurn)
            assert second.failure == "cancelled"


def is_sampled(name: str, label: str, cell: Cell) -> bool:
    """Every loss is played in one dialect of each choice: what it is, the dialects do not see."""
    return (
        name == "chat"
        or cell.choice == "resume"
        or label not in {failure.code for failure in LOSSES if failure is not Failure.RESET}
    )


CASES = [
    pytest.param(wire, cell, happening, id=f"{name}-{cell}-{label}")
    for name, wire in WIRES.items()
    for cell in CELLS
    for label, happening in HAPPENINGS[cell.failure].items()
    if is_sampled(name, label, cell) and cell.is_in(wire)
]
FOLLOWING_CASES = [
    pytest.param(wire, cell, happening, id=f"{name}-{cell}-{label}")
    for name, wire in WIRES.items()
    for cell in FOLLOWING
    for label, happening in FOLLOWING_HAPPENINGS[cell.failure].items()
    if cell.is_in(wire) and (wire.style or cell.choice != "continue")
]


@pytest.mark.parametrize(("wire", "cell", "happening"), CASES)
def test_a_cell(wire: Wire, cell: Cell, happening: Happening) -> None:
    stage = Stage(wire, cell, Policy(**cell.limits, max_event=MAX_EVENT, max_hold=1024 * 1024))
    stage.play(happening)
    check(stage, cell.outcome_in(wire))


def happens_before_output(wire: Wire, choice: str, happening: Happening) -> tuple[Any, ...]:
    stage = Stage(wire, Cell("", "prelude", choice, Outcome.NONE), Policy(**CHOICES[choice], max_event=MAX_EVENT))
    stage.play(happening)
    return stage.received, stage.void, stage.told, type(stage.error), str(stage.error), len(stage.requests)


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
def test_before_the_first_output_the_choices_differ_in_nothing(wire: Wire) -> None:
    for happening in (one for happenings in HAPPENINGS.values() for one in happenings.values()):
        by_default = happens_before_output(wire, "default", happening)
        for choice in CHOICES.keys() - {"resume"}:  # another request
            assert happens_before_output(wire, choice, happening) == by_default


@pytest.mark.parametrize(("wire", "cell", "happening"), FOLLOWING_CASES)
def test_a_cell_of_the_attempt_that_follows(wire: Wire, cell: Cell, happening: Happening) -> None:
    stage = Stage(wire, dataclasses.replace(cell, place="text"), Policy(**cell.limits, max_event=MAX_EVENT))
    stage.play(is_lost(Failure.RESET), happening)
    check_following(stage, cell)


def test_the_table_has_every_cell_and_each_once() -> None:
    cells = [(cell.failure, cell.place, cell.choice) for cell in CELLS]
    assert sorted(cells) == sorted(
        (failure, place, choice) for failure in FAILURES for place in PLACES for choice in CHOICES
    )
    assert set(HAPPENINGS) == set(FAILURES)
    assert set(FOLLOWING_HAPPENINGS) == set(FOLLOWING_FAILURES) == {cell.failure for cell in FOLLOWING}
