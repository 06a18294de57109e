"""A turn: the rule, the budget, and what to do next. This is the place to start reading.

A driver asks :meth:`Turn.next` what to do and does it; what came of it, it tells by :meth:`Turn.head`,
:meth:`Turn.data`, :meth:`Turn.end` or :meth:`Turn.lost`. The turn decides everything: what is handed on, what is
replayed, how long to wait and when it is over. A turn that goes well reads::

    next -> Send         head(200, ...)
    next -> Read         data(": keep-alive")      held
    next -> Read         data("role")              held
    next -> Read         data("Hel")               the attempt speaks
    next -> GiveHead     next -> Give(all held)
    next -> Read         data("lo"), data("finish_reason": "stop")
    next -> Give         next -> Read              end()
    next -> Finish

and one that is cut after the role::

    next -> Read         lost(RESET)
    next -> Drop, Tell(Again(...)), Wait(0), Send   ... and nothing of the first attempt is ever shown
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from unbroken.core.attempt import MAX_REFUSAL, Attempt, Mode
from unbroken.core.dialect import Call
from unbroken.core.failures import Failure, Phase, Row, Verdict, verdict
from unbroken.core.http import Head
from unbroken.core.policy import Policy, retry_after
from unbroken.core.report import AttemptReport, Report
from unbroken.errors import FirstOutputTimeout, MalformedStream, StreamCut, TurnError, Unreachable

LINGER = 0.5
"""Seconds to wait for the end of the body after its terminator, so that the connection can be used again."""

READ_REFUSAL = 5.0
"""Seconds to wait for the body of an error response before deciding without it."""

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)})


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How long the wire may wait.

    Attributes:
        connect: seconds until the connection must stand (names, proxy and TLS included).
        idle: seconds without a byte after which the connection is lost.
        until: the moment, on the driver's clock, at which waiting ends whatever happens; ``None`` for never.
        ping: interval of PING in seconds, 0 for none.
        ping_timeout: seconds a PING may stay unanswered.
    """

    connect: float
    idle: float
    until: float | None
    ping: float
    ping_timeout: float


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """An attempt was lost and another one follows: the observable event of every retry and replay.

    Attributes:
        action: ``"retry"`` where it was provably not processed, ``"replay"`` where it may have been.
        attempt: number of the lost attempt.
        of: how many attempts there can be at most, as things stand.
        failure: what happened.
        lost: the record of the lost attempt.
        delay: seconds until the next attempt.
        advice: what to do about a pattern in the losses so far, or ``""``.
    """

    action: Literal["retry", "replay"]
    attempt: int
    of: int
    failure: Failure
    lost: AttemptReport
    delay: float
    advice: str


# What a driver is asked to do.


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send the request on a connection of its own; answer with ``head`` or ``lost``."""

    attempt: int
    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read the next bytes of the body; answer with ``data``, ``end`` or ``lost``."""

    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Close the exchange at once, whatever it is doing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Wait this many seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Tell:
    """Tell whoever observes the turn."""

    event: Again


@dataclasses.dataclass(frozen=True, slots=True)
class GiveHead:
    """Hand the status and headers on to the caller."""

    head: Head


@dataclasses.dataclass(frozen=True, slots=True)
class Give:
    """Hand bytes of the body on to the caller."""

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """The body has ended, as far as the caller is concerned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """Raise this to the caller."""

    error: TurnError


Action: TypeAlias = Send | Read | Drop | Wait | Tell | GiveHead | Give | Finish | Fail


class Turn:
    """One turn under the rule.

    Args:
        call: what is asked, as its dialect recognised it.
        policy: the limits.
        now: the present on the driver's clock, a monotonic one, in seconds.
        random: uniform in [0, 1), for jitter.
        wall_clock: seconds since the epoch, for ``Retry-After`` dates.
    """

    def __init__(
        self,
        call: Call,
        policy: Policy,
        *,
        now: float,
        random: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._policy = policy.once() if call.single_attempt else policy
        self._random = random
        self._wall_clock = wall_clock
        self._started = now
        self._retries = 0
        self._replays = 0
        self._waits = 0
        self._unreachable_since: float | None = None
        self._records: list[AttemptReport] = []
        self._head_given = False
        self._todo: deque[Action] = deque()
        self._over = False
        self._attempt = self._begin(now)
        self._read = Read(self._limits(now))

    # What the driver asks

    def next(self) -> Action:
        """What to do next. After :class:`Finish` or :class:`Fail` the turn is over."""
        return self._todo.popleft() if self._todo else self._read

    @property
    def phase(self) -> Phase:
        """How far the running attempt has come."""
        return self._attempt.phase

    @property
    def attempt(self) -> int:
        """Number of the running attempt."""
        return self._attempt.number

    @property
    def report(self) -> Report:
        """Every attempt that has ended so far."""
        return Report(
            attempts=tuple(self._records),
            retries=self._retries,
            replays=self._replays,
            dialect=self._call.dialect.name,
        )

    # What the driver tells

    def head(self, head: Head, now: float) -> None:
        """The response's headers have come."""
        attempt = self._attempt
        self._unreachable_since = None
        if head.status >= 400 and self._worth_asking(head):
            attempt.open(head, Mode.REFUSAL)
        elif 200 <= head.status < 300 and self._call.expects(head):
            attempt.open(head, Mode.STREAM if self._call.streaming else Mode.WHOLE)
        else:
            attempt.open(head, Mode.OPAQUE)
        self._read = Read(self._limits(now))
        if attempt.mode is Mode.OPAQUE:
            self._give_head()

    def data(self, chunk: bytes, now: float) -> None:
        """Bytes of the body have come."""
        attempt = self._attempt
        before = attempt.phase
        self._give(attempt.data(chunk))
        if attempt.failure:
            self._settle_failure(attempt.failure, attempt.detail, now)
        elif attempt.mode is Mode.REFUSAL:
            if len(attempt.refusal) >= MAX_REFUSAL:
                self._decide_refusal(now)
        elif attempt.phase is not before or attempt.phase in (Phase.SETTLED, Phase.COMPLETE):
            self._read = Read(self._limits(now))

    def end(self, now: float, silent: float = 0.0) -> None:
        """The body has ended cleanly, as far as HTTP is concerned."""
        attempt = self._attempt
        if attempt.mode is Mode.REFUSAL and self._decide_refusal(now):
            return
        self._give(attempt.end())
        if attempt.failure:
            self._settle_failure(attempt.failure, attempt.detail, now, silent)
        else:
            self._finish(now, silent)

    def lost(self, failure: Failure, detail: str, now: float, *, sent: bool, silent: float = 0.0) -> None:
        """The exchange failed under us.

        Args:
            failure: how.
            detail: one line for a person.
            now: the driver's clock.
            sent: whether any byte of the request may have left.
            silent: seconds since the last byte on the wire, either way.
        """
        attempt = self._attempt
        if attempt.mode is Mode.REFUSAL and self._decide_refusal(now):
            return
        if sent and attempt.phase is Phase.CONNECT:
            attempt.phase = Phase.HEADERS
        self._settle_failure(failure, detail, now, silent)

    def cancelled(self, now: float, *, sent: bool) -> None:
        """The caller has left: nothing more happens; the report says so."""
        if self._over:
            return
        if sent and self._attempt.phase is Phase.CONNECT:
            self._attempt.phase = Phase.HEADERS
        self._record(Failure.CANCELLED, "", now)
        self._end_with(Finish())

    # Deciding

    def _settle_failure(self, failure: Failure, detail: str, now: float, silent: float = 0.0) -> None:
        match verdict(failure, self._attempt.phase):
            case Verdict.END:
                self._finish(now, silent, failure, detail)
            case Verdict.HAND_ON:
                self._hand_on_error(failure, now)
            case Verdict.RETRY | Verdict.RETRY_BRIEFLY | Verdict.REPLAY | Verdict.REPLAY_WITH_BACKOFF as again:
                self._go_again(again, failure, detail, now, silent)
            case _:
                self._fail(failure, detail, now, silent)

    def _go_again(self, again: Verdict, failure: Failure, detail: str, now: float, silent: float) -> None:
        delay = self._delay(again)
        if refused := self._forbids(again, failure, now + delay):
            if failure is Failure.TRANSIENT_ERROR:
                self._hand_on_error(failure, now)
            else:
                self._fail(failure, detail, now, silent, refused)
        else:
            self._repeat(again, failure, detail, now, silent, delay)

    def _decide_refusal(self, now: float) -> bool:
        """Wait after an error response and go again, or hand it on; whether another attempt follows."""
        attempt, head = self._attempt, self._head
        refusal = self._call.dialect.refusal(head.status, attempt.refusal)
        late = now - attempt.started > self._policy.late
        failure = Failure.GATEWAY_GAVE_UP if late else Failure.BUSY
        again = verdict(failure, Phase.HEADERS)
        asked = retry_after(head.fields, self._wall_clock())
        delay = self._delay(again) if asked is None else asked
        hopeless = not refusal.transient and head.fields.get("x-should-retry") != "true"
        if hopeless or delay > self._policy.retry_after_max or self._forbids(again, failure, now + delay):
            self._give_head()
            self._give(attempt.release_refusal())
            self._read = Read(self._limits(now))
            return False
        attempt.phase = Phase.HEADERS
        self._repeat(again, failure, f"HTTP {head.status}", now, 0.0, delay)
        return True

    def _worth_asking(self, head: Head) -> bool:
        """Whether an error status may pass; the server's own word on it wins (``x-should-retry``, sent by OpenAI)."""
        said = head.fields.get("x-should-retry", "").strip().lower()
        if said in ("true", "false"):
            return said == "true"
        return head.status in RETRYABLE_STATUSES

    def _delay(self, again: Verdict) -> float:
        """The first replay goes at once; everything else waits."""
        if again is Verdict.REPLAY and self._replays == 0:
            return 0.0
        return self._policy.backoff(self._waits, self._random)

    def _forbids(self, again: Verdict, failure: Failure, start: float) -> str:
        """Why another attempt, starting at ``start``, is not allowed; ``""`` where it is."""
        policy = self._policy
        counts_as_replay = again in (Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF)
        if counts_as_replay and self._call.acts and not policy.replay_acting:
            return "not replayed: the call acts on the world"
        if counts_as_replay and self._replays >= policy.replays:
            return f"{_times(policy.replays, 'replay')} used up" if policy.replays else "no replays allowed"
        if not counts_as_replay and self._retries >= policy.retries:
            return f"{_times(policy.retries, 'retry', 'retries')} used up" if policy.retries else "no retries allowed"
        if start - self._started > policy.give_up_after:
            return f"gave up after {policy.give_up_after:g} s"
        if failure.row is Row.UNREACHABLE:
            since = self._attempt.started if self._unreachable_since is None else self._unreachable_since
            if start - since > policy.unreachable_for:
                return f"tried for {policy.unreachable_for:g} s"
        return ""

    # Carrying it out

    def _begin(self, now: float) -> Attempt:
        attempt = Attempt(len(self._records) + 1, self._call, self._policy, now)
        self._attempt = attempt
        self._todo.append(Send(attempt.number, self._limits(now)))
        return attempt

    def _repeat(self, again: Verdict, failure: Failure, detail: str, now: float, silent: float, delay: float) -> None:
        replay = again in (Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF)
        left = self._policy.replays - self._replays if replay else self._policy.retries - self._retries
        lost = self._record(failure, detail, now, silent)
        if failure.row is Row.UNREACHABLE and self._unreachable_since is None:
            self._unreachable_since = self._attempt.started
        self._replays += replay
        self._retries += not replay
        self._waits += delay > 0
        told = Again(
            "replay" if replay else "retry", lost.number, lost.number + left, failure, lost, delay, self.report.advice
        )
        self._todo += [Drop(), Tell(told), Wait(delay)]
        self._begin(now + delay)

    def _hand_on_error(self, failure: Failure, now: float) -> None:
        """An error inside the stream that is the caller's to see, as it came."""
        attempt = self._attempt
        attempt.failure = None
        attempt.detail = failure.phrase
        self._give(attempt.release_error())
        self._read = Read(self._limits(now))

    def _finish(self, now: float, silent: float, failure: Failure | None = None, detail: str = "") -> None:
        self._give_head()
        self._record(failure, detail or self._attempt.detail, now, silent)
        if failure:
            self._todo.append(Drop())
        self._end_with(Finish())

    def _fail(self, failure: Failure, detail: str, now: float, silent: float, refused: str = "") -> None:
        record = self._record(failure, detail, now, silent)
        self._todo.append(Drop())
        self._end_with(Fail(self._error(failure, record, refused)))

    def _end_with(self, action: Finish | Fail) -> None:
        self._over = True
        self._todo.append(action)

    def _error(self, failure: Failure, record: AttemptReport, refused: str) -> TurnError:
        phase, report = self._attempt.phase, self.report
        happened = f"{failure.phrase} ({record.detail})" if record.detail else failure.phrase
        lost = f"; {_times(len(report.attempts), 'attempt')} in all" if len(report.attempts) > 1 else ""
        advice = f"; {report.advice}" if report.advice else ""
        because = f" ({refused}{lost})" if refused else ""
        retryable = failure.row in (Row.LOST, Row.UNPROCESSED, Row.UNREACHABLE)
        if failure.row is Row.MALFORMED:
            return MalformedStream(f"the stream is broken: {happened}", phase=phase, report=report)
        if failure.row is Row.NO_OUTPUT:
            message = f"no output within {self._policy.first_output:g} s; raise the limit if the model may think longer"
            return FirstOutputTimeout(message, phase=phase, retryable=True, report=report)
        if phase is Phase.CONNECT:
            return Unreachable(f"{happened}{because}", phase=phase, retryable=retryable, report=report)
        waiting = phase in (Phase.HEADERS, Phase.PRELUDE)
        when = "before any output" if waiting else "after output: the answer is not whole"
        message = f"the stream was cut after {record.elapsed:.1f} s, {when}: {happened}{because}{advice}"
        return StreamCut(message, phase=phase, retryable=retryable, report=report)

    # Handing on

    def _give_head(self) -> None:
        if not self._head_given:
            self._head_given = True
            self._todo.append(GiveHead(self._head))

    def _give(self, data: bytes) -> None:
        if data:
            self._give_head()
            self._todo.append(Give(data))

    @property
    def _head(self) -> Head:
        assert self._attempt.head is not None, "nothing is handed on before the headers"
        return self._attempt.head

    # Limits and records

    def _limits(self, now: float) -> Limits:
        policy, attempt = self._policy, self._attempt
        until: float | None = None
        if attempt.mode is Mode.REFUSAL:
            until = now + READ_REFUSAL
        elif attempt.phase is Phase.COMPLETE:
            until = now + LINGER
        elif attempt.phase is Phase.SETTLED:
            until = now + policy.settle
        elif attempt.phase is not Phase.OUTPUT:
            until = attempt.started + policy.first_output
        return Limits(policy.connect, policy.idle, until, policy.ping, policy.ping_timeout)

    def _record(self, failure: Failure | None, detail: str, now: float, silent: float = 0.0) -> AttemptReport:
        attempt = self._attempt
        head = attempt.head
        version = head.http_version if head else ""
        record = AttemptReport(
            number=attempt.number,
            phase=attempt.phase,
            failure=failure.code if failure else None,
            detail=detail,
            status=head.status if head else None,
            elapsed=now - attempt.started,
            silent=silent,
            http_version=version,
            pinged=version == "HTTP/2" and self._policy.ping > 0,
            billed=self._billed(failure),
        )
        self._records.append(record)
        return record

    def _billed(self, failure: Failure | None) -> Literal["no", "unknown", "yes"]:
        phase = self._attempt.phase
        if phase is Phase.CONNECT or (failure and failure.row in (Row.UNPROCESSED, Row.BUSY)):
            return "no"
        spoke = phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
        return "yes" if spoke and self._attempt.mode is not Mode.OPAQUE else "unknown"


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
