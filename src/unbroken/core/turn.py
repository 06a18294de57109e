"""A turn: the rule, the budget, and the next action. Start reading here.

A driver asks :meth:`Turn.next` what to do, does it, and reports the result with :meth:`Turn.head`, :meth:`Turn.data`,
:meth:`Turn.end`, :meth:`Turn.lost` or :meth:`Turn.noticed`. The turn decides everything: what is handed on, what is
replayed, how long to wait and when it is over. A successful turn::

    next -> Send         head(200, ...)
    next -> Read         data(": keep-alive")      held
    next -> Read         data("role")              held
    next -> Read         data("Hel")               first output
    next -> GiveHead     next -> Give(all held)
    next -> Read         data("lo"), data("finish_reason": "stop")
    next -> Give         next -> Read              end()
    next -> EndTurn

and one that is cut after the role::

    next -> Read         lost(RESET)
    next -> Drop, Notify(RetryEvent(...)), Wait(0), Send   ... nothing of the first attempt is handed on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from unbroken.core.actions import (
    Action,
    CallerTimeouts,
    Drop,
    EndTurn,
    Fail,
    Give,
    GiveHead,
    Limits,
    LowerPing,
    Notify,
    Parting,
    PathNotice,
    Prefer,
    Read,
    RetryAction,
    RetryEvent,
    Send,
    Wait,
)
from unbroken.core.attempt import MAX_REFUSAL, Attempt, Mode
from unbroken.core.attempt_record import record_of
from unbroken.core.budget import REPLAYS, RetryBudget
from unbroken.core.deadlines import READ_REFUSAL, deadline, limits
from unbroken.core.dialect import Call
from unbroken.core.events import Restarted
from unbroken.core.failures import Failure, Phase, Row, Verdict, verdict
from unbroken.core.http import Head, Request
from unbroken.core.output_limit import OutputLimit
from unbroken.core.paths import PathChoice, Paths
from unbroken.core.policy import Policy, retry_after
from unbroken.core.recoveries import Recoveries
from unbroken.core.report import AttemptReport, Report, lesson
from unbroken.core.route import RouteRecord
from unbroken.core.statuses import NO_BODY, judge, should_retry
from unbroken.core.suspicion import PathEvent, Recovered, SecondStands, Suspected, Suspicion
from unbroken.core.turn_error import turn_error
from unbroken.errors import StreamCut

if TYPE_CHECKING:
    from unbroken.core.continuation.continuer import Continuer
    from unbroken.core.continuation.format import Style
    from unbroken.core.resumption.refused import RefusedBackgrounds
    from unbroken.core.resumption.resumer import Resumer

_CUTS = (Verdict.REPLAY, Verdict.CUT)
"""Verdicts on a stream that was cut, which can be taken up where the response goes on at the server."""

_FLOWING = (Mode.STREAM, Mode.OPAQUE)
"""Ways of reading a body of which bytes may be handed on at once."""

_ANSWERS = (Row.REFUSED, Row.BUSY, Row.GATEWAY_GAVE_UP, Row.OTHER_CONTENT)
"""What a server may say to a request to take a response up."""


class Turn:
    """One turn under the rule.

    Args:
        call: the generation call, as its dialect recognised it.
        policy: the limits.
        now: the time on the driver's clock, a monotonic one, in seconds.
        random: uniform in [0, 1), for jitter.
        wall_clock: seconds since the epoch, for ``Retry-After`` dates.
        timeouts: the caller's own timeouts, which apply in addition to the policy.
        may_hold: takes how many bytes of the response are held; says whether they may be. If not, no more is held than
            the prelude.
        paths: the paths to the server.
        request: the request, from which others of the turn are made.
        continuation: the style in which its server continues an answer, ``None`` for the one that is known of it.
        may_restart: whether the caller can be told that its answer begins again, by :class:`Restart`.
        kept_at: the URL of the relay at which a response that a relay keeps is taken up, ``""`` for the root of the
            server; ``None`` for nowhere.
        refused: the servers that have refused to let a response go on.
    """

    def __init__(
        self,
        call: Call,
        policy: Policy,
        *,
        now: float,
        random: Callable[[], float],
        wall_clock: Callable[[], float],
        timeouts: CallerTimeouts = CallerTimeouts(),  # noqa: B008 - frozen
        may_hold: Callable[[int], bool] | None = None,
        paths: Paths = Paths(),  # noqa: B008 - frozen
        request: Request | None = None,
        continuation: Style | None = None,
        may_restart: bool = False,
        kept_at: str | None = None,
        refused: RefusedBackgrounds | None = None,
    ) -> None:
        self._paths = PathChoice(paths)
        self._call = call
        self._policy = policy.once() if call.single_attempt else policy
        self._random = random
        self._wall_clock = wall_clock
        self._timeouts = timeouts
        self._may_hold = may_hold
        self._started = now
        self._records: list[AttemptReport] = []
        self._budget = RetryBudget(self._policy, acts=call.generation.acts, lost=self._records, random=random, now=now)
        self._head_given = False
        self._suspicion: Suspicion | None = None
        self._todo: list[Action] = []
        self._over = False
        self._data_at = now
        self._progress = 0
        self._output_limit = OutputLimit(self._policy.stall_output_timeout, now)
        self._recoveries = Recoveries(
            call,
            self._policy,
            random,
            request,
            style=continuation,
            may_restart=may_restart,
            kept_at=kept_at,
            refused=refused,
        )
        self._attempt = self._begin(now)
        self._otherwise: Action = Read(self._limits(now))

    # Queries of the driver

    def next(self) -> Action:
        """Return the next action. After :class:`EndTurn` or :class:`Fail` the turn is over; it is returned again."""
        while not self._todo and self._attempt.has_more:
            self._take(self._attempt.more(), self._data_at)
        return self._todo.pop(0) if self._todo else self._otherwise

    @property
    def flowing(self) -> Limits | None:
        """The limits to read with while output flows and there is nothing to decide; otherwise ``None``."""
        otherwise, attempt = self._otherwise, self._attempt
        if self._todo or attempt.phase is not Phase.OUTPUT or not attempt.has_spoken or attempt.has_more:
            return None
        if attempt.mode not in _FLOWING:
            return None  # it answers a request to take the stream up, and may be no part of it
        if self._suspicion or self._recoveries.continuer or self._policy.stall_output_timeout is not None:
            return None  # each piece is looked at: it may move a limit, or be continued
        return otherwise.limits if isinstance(otherwise, Read) else None

    @property
    def phase(self) -> Phase:
        """The phase of the running attempt."""
        return self._attempt.phase

    @property
    def attempt(self) -> int:
        """Number of the running attempt."""
        return self._attempt.number

    @property
    def is_stream(self) -> bool:
        """Whether the response is read as a stream of events, whatever its media type."""
        return self._attempt.mode is Mode.STREAM

    def suspicion(self, now: float) -> str:
        """Return what is waited for of a path that does not answer, as a line for a person; ``""`` if it answers."""
        return self._suspicion.text(now) if self._suspicion else ""

    @property
    def report(self) -> Report:
        """The report of all attempts that have ended so far."""
        recoveries = self._recoveries
        return Report(
            attempts=tuple(self._records),
            retries=self._budget.retries,
            replays=self._budget.replays,
            dialect=self._call.dialect.name,
            seams=tuple(recoveries.continuer.seams) if recoveries.continuer else (),
            restarts=tuple(recoveries.restarter.restarts) if recoveries.restarter else (),
            resumes=tuple(recoveries.resumer.resumes) if recoveries.resumer else (),
            background=recoveries.background_report(),
        )

    def running(
        self, now: float, *, sent: bool, silent: float = 0.0, route: RouteRecord | None = None
    ) -> AttemptReport | None:
        """Return the record of the running attempt so far; ``None`` once the turn is over.

        Args:
            now: the driver's clock.
            sent: whether any byte of its request may have left.
            silent: seconds since the last byte of the response.
            route: what the wire knows of the path, ``None`` for what it said before.
        """
        if self._over:
            return None
        self._attempt.route = route or self._attempt.route
        attempt = self._describe(None, "", now, silent)
        waits = sent and attempt.phase is Phase.CONNECT
        return msgspec.structs.replace(attempt, phase=Phase.HEADERS) if waits else attempt

    # Reports of the driver

    def resume(self, away: float, now: float) -> None:
        """Take that the caller asks for more, ``away`` seconds after it was given the last: no time without output."""
        if self._output_limit.rest(self._attempt, away):
            self._otherwise = Read(self._limits(now))

    def head(self, head: Head, now: float, route: RouteRecord | None = None) -> None:
        """Take the response's status and headers, and what the wire knows of the path."""
        attempt = self._attempt
        attempt.route = route or attempt.route
        attempt.headers_at = now
        self._recoveries.answered(head, attempt)
        if self._paths.moved and head.status < 300:
            self._todo.append(Prefer(self._paths.index))
        if head.status >= 300:
            attempt.noted = judge(head, now - attempt.started, self._policy, self._wall_clock())
            retryable = attempt.noted is not Failure.REFUSED and self._retry_delay(head, attempt.noted, now) is not None
            attempt.open(
                head, Mode.REFUSAL if retryable or self._recoveries.may_refuse_background(head) else Mode.OPAQUE
            )
        elif self._call.expects(head):
            attempt.open(head, Mode.STREAM if self._call.streaming else Mode.WHOLE)
        elif head.status not in NO_BODY:
            attempt.open(head, Mode.SNIFFING)
        else:
            attempt.noted = Failure.OTHER_CONTENT
            attempt.open(head, Mode.OPAQUE)
        self._phase = attempt.phase
        self._output_limit.begin(attempt, now)
        if attempt.failure:
            self._raise_error(attempt.failure, attempt.detail, now, 0.0)
            return
        self._otherwise = Read(self._limits(now))
        if attempt.mode is Mode.OPAQUE and not self._refuse_response(now):
            self._give_head()

    def data(self, chunk: bytes, now: float) -> None:
        """Take the next bytes of the body. What of them is still compressed is decoded as the driver goes on."""
        self._data_at = now
        self._take(self._attempt.data(chunk), now)

    def pour(self, chunk: bytes, now: float) -> bytes | None:
        """Take the next bytes of the body while :attr:`flowing`; return what may be handed on at once.

        Returns:
            ``None`` if there is something to decide: the bytes are taken, as by :meth:`data`, and :meth:`next` goes on.
        """
        attempt = self._attempt
        released = attempt.data(chunk)
        if attempt.phase is Phase.OUTPUT and attempt.failure is None and not attempt.has_more:
            return released
        self._data_at = now
        self._take(released, now)
        return None

    @property
    def withholds(self) -> bool:
        """Whether bytes that may be handed on wait for :meth:`next`."""
        return any(isinstance(action, Give) for action in self._todo)

    def put_back(self, data: bytes) -> None:
        """Have :meth:`next` hand on what :meth:`pour` has returned: the caller did not take it."""
        self._give(data)

    def restarted(self, event: Restarted) -> None:
        """Record a restart, once the driver has told the caller of it."""
        assert self._recoveries.restarter is not None, "it was asked for"
        self._recoveries.restarter.restarts.append(event)
        if isinstance(self._otherwise, Fail):  # the same bytes held a failure
            self._otherwise.error.report = self.report

    def end(self, now: float, silent: float = 0.0, route: RouteRecord | None = None) -> None:
        """Take the end of the body, which is clean by HTTP's framing; the rest as for :meth:`lost`."""
        attempt, number = self._attempt, self._attempt.number
        attempt.route = route or attempt.route
        if attempt.mode is Mode.REFUSAL and self._decide_refusal(now):
            return
        self._give(attempt.end())
        self._note_phase(now)
        if attempt.failure:
            self._lose(attempt.failure, attempt.detail, now, silent)
        if number == self._attempt.number and not self._over:  # not lost, or an error that was handed on
            self._finish(now, silent)

    def lost(
        self,
        failure: Failure,
        detail: str,
        now: float,
        *,
        sent: bool,
        silent: float = 0.0,
        route: RouteRecord | None = None,
    ) -> None:
        """Take a failure of the exchange.

        Args:
            failure: how it failed.
            detail: one line for a person.
            now: the driver's clock.
            sent: whether any byte of the request may have left.
            silent: seconds since the last byte of the response.
            route: what the wire knows of the path, ``None`` for what it said before.
        """
        self._attempt.route = route or self._attempt.route
        if sent and self._attempt.phase is Phase.CONNECT:
            self._attempt.phase = Phase.HEADERS
        self._lose(failure, detail, now, silent)

    def noticed(self, event: PathEvent, now: float) -> None:
        """Take an event of the path; the exchange goes on. Where little is waited for anyway, it changes nothing."""
        attempt, suspicion = self._attempt, self._suspicion
        if attempt.phase is Phase.CONNECT:
            attempt.phase = Phase.HEADERS
        if attempt.phase not in (Phase.HEADERS, Phase.PRELUDE, Phase.OUTPUT) or attempt.mode is Mode.REFUSAL:
            return
        if suspicion is None and isinstance(event, Suspected):
            suspicion = self._suspicion = Suspicion(event, now, self._policy, self._random)
        if suspicion and suspicion.take(event, now, replaceable=self._may_replay):
            self._todo.append(Notify(PathNotice(attempt.number, suspicion.text(now))))
        if suspicion and isinstance(event, SecondStands):
            self._paths.prove(self._paths.beside(suspicion.failed))
        if isinstance(event, Recovered):
            self._suspicion = None
            self._paths.prove(None)
        self._otherwise = Read(self._limits(now))

    def cancelled(self, now: float, *, sent: bool) -> None:
        """End the turn because the caller cancelled it, and record that."""
        if self._over:
            return
        attempt = self._attempt
        if sent and attempt.phase is Phase.CONNECT:
            attempt.phase = Phase.HEADERS
        self._todo.clear()
        ended = attempt.phase is Phase.COMPLETE or (attempt.noted is not None and attempt.mode is not Mode.REFUSAL)
        runs_on = self._recoveries.may_run_on(attempt, Failure.CANCELLED) and not self.partings
        self._record(attempt.noted if ended else Failure.CANCELLED, "", now, runs_on=runs_on)
        self._end_with(EndTurn())

    @property
    def partings(self) -> list[Parting]:
        """What is to be asked of the server when the turn is over, whether or not the caller is still there."""
        return self._recoveries.partings(self._attempt)

    def parted(self, parting: Parting, *, acknowledged: bool) -> None:
        """Take whether the server has acknowledged what was asked of it."""
        self._recoveries.parted(parting, acknowledged=acknowledged)

    # Decisions

    def _take(self, released: bytes, now: float) -> None:
        """Give what the attempt has released, and decide about what it has reported."""
        attempt = self._attempt
        if self._may_hold and not self._may_hold(attempt.held):
            released += attempt.speak()
        if attempt.mode is Mode.OPAQUE and released:
            if self._refuse_response(now):
                return
            self._give_head()
        speaks = released and (not self._head_given or self._recoveries.is_restart_due)
        self._give(released)
        changed = self._note_phase(now)
        continuer = self._recoveries.continuer
        if continuer and continuer.problem:
            self._raise_misfit(continuer.problem, now)
        elif attempt.failure is Failure.MISFIT:
            self._raise_misfit(attempt.detail, now)
        elif attempt.failure:
            self._lose(attempt.failure, attempt.detail, now)
        elif attempt.mode is Mode.REFUSAL:
            if len(attempt.refusal) >= MAX_REFUSAL:
                self._decide_refusal(now)
        elif changed or speaks:
            self._otherwise = Read(self._limits(now))

    def _lose(self, failure: Failure, detail: str, now: float, silent: float = 0.0) -> None:
        """Carry out the verdict on a failure in the attempt's phase."""
        if self._attempt.mode is Mode.REFUSAL and failure is not Failure.CALLER_TIMEOUT:
            if self._decide_refusal(now):
                return
            if failure is Failure.DEADLINE:
                failure, detail = Failure.TRUNCATED, f"the error's body did not come within {READ_REFUSAL:g} s"
        if failure is Failure.DEADLINE and self._attempt.phase is Phase.SETTLED:
            failure = Failure.UNPROVEN_END
        if failure is Failure.DEADLINE and self._attempt.phase is Phase.OUTPUT:
            failure = Failure.STALLED_OUTPUT
        detail = self._policy.named_limit(failure) or detail
        if self._attempt.output_at is not None:
            self._budget.restart_clock(now)  # what is held is lost only now, however long it took to come
        how = self._verdict(failure)
        if how is Verdict.ERROR and self._paths.successor(failure, self._attempt.shown_phase) is not None:
            how = Verdict.RETRY
        recoveries = self._recoveries
        if recoveries.resumer and how in _CUTS and self._resume(recoveries.resumer, failure, detail, now, silent):
            return
        match how:
            case Verdict.END:
                self._finish(now, silent, failure, detail)
            case Verdict.HAND_ON:
                self._hand_on_error(failure, now)
            case Verdict.RETRY | Verdict.RETRY_BRIEFLY | Verdict.REPLAY | Verdict.REPLAY_WITH_BACKOFF:
                self._resend(how, failure, detail, now, silent)
            case Verdict.CUT if self._splicer:
                self._continue(self._splicer, failure, detail, now, silent)
            case Verdict.CUT if recoveries.restarter and self._attempt.mode is Mode.STREAM:
                self._resend(Verdict.REPLAY, failure, detail, now, silent)
            case _:
                self._raise_error(failure, detail, now, silent)

    def _resend(self, how: Verdict, failure: Failure, detail: str, now: float, silent: float) -> None:
        is_new_path = self._paths.is_new(self._paths.successor(failure, self._attempt.shown_phase))
        delay = 0.0 if is_new_path else self._budget.clamped_delay(how, failure, self._attempt, now)
        if (told := self._attempt.retry_after) is not None and how is Verdict.REPLAY_WITH_BACKOFF:
            delay = told
        refused = self._budget.forbids(how, failure, self._attempt, now + delay, is_new_path=is_new_path)
        if told is not None and told > self._policy.retry_after_max:
            refused = f"the provider asks to wait {told:g} s"
        if not refused:
            self._repeat(how, failure, detail, now, silent, delay)
        elif failure is Failure.TRANSIENT_ERROR:
            self._hand_on_error(failure, now)
        else:
            self._raise_error(failure, detail, now, silent, refused)

    def _continue(self, continuer: Continuer, failure: Failure, detail: str, now: float, silent: float) -> None:
        """Ask for the rest of an answer that was cut, or raise the cut, with the reason why not."""
        if continuer.problem:
            self._raise_misfit(continuer.problem, now)
            return
        budget, how = self._budget, Verdict.REPLAY
        budget.restart_clock(now)
        delay = budget.delay(how)
        refused = budget.forbids(how, failure, self._attempt, now + delay) or continuer.plan()
        if refused:
            self._raise_error(failure, detail, now, silent, f"not continued: {refused}")
        else:
            self._repeat(how, failure, detail, now, silent, delay)

    def _verdict(self, failure: Failure) -> Verdict:
        """Return what is done about a failure of the running attempt."""
        how = verdict(failure, self._attempt.shown_phase)
        return Verdict.CUT if how in REPLAYS and self._recoveries.takes_up and self._attempt.has_spoken else how

    def _verdict_on_status(self, failure: Failure) -> Verdict:
        """Return what is done about an error status; a request that takes up a response costs nothing."""
        return Verdict.RETRY if self._recoveries.takes_up else verdict(failure, Phase.HEADERS)

    def _resume(self, resumer: Resumer, failure: Failure, detail: str, now: float, silent: float) -> bool:
        """Take up the response after a cut; return whether that is possible."""
        if resumer.has_progressed:
            self._budget.restart_clock(now)
            self._budget.restart_retries()
        delay, left = resumer.delay(), resumer.left
        if why_not := resumer.obstacle or self._budget.is_too_late(now + delay):
            resumer.why_not = f"not resumed: {why_not}"
            return False
        lost = self._record(failure, detail, now, silent)
        resumer.take_up(failure)
        self._go_on("resume", lost, left, failure, now, delay)
        return True

    def _fall_back(self, now: float) -> None:
        """Do what the rule says about a cut, as the server refuses to have its stream taken up."""
        attempt = self._attempt
        failure = attempt.noted or Failure.OTHER_CONTENT
        attempt.phase = Phase.HEADERS
        resumer = self._recoveries.resumer
        cut = resumer.loss.phrase if resumer else ""
        detail = f"HTTP {self._head.status} to the request for the rest of its stream, which was cut: {cut}"
        attempt.has_spoken = attempt.had_spoken
        if attempt.has_spoken and not self._recoveries.restarter:
            self._raise_error(failure, detail, now, 0.0)
        else:
            attempt.retry_after = self._told_wait()
            how = Verdict.REPLAY if attempt.retry_after is None else Verdict.REPLAY_WITH_BACKOFF
            self._resend(how, failure, detail, now, 0.0)

    def _told_wait(self) -> float | None:
        """Return the seconds to wait that a refusal names, in its head or its body; ``None`` if it names none."""
        told = retry_after(self._head.fields, self._wall_clock())
        if told is None and self._head.status >= 300:
            told = self._call.dialect.read_error(self._head.status, self._attempt.refusal).retry_after
        return told

    def _retry_delay(self, head: Head, failure: Failure, now: float, told: float | None = None) -> float | None:
        """Return the seconds to wait after an error status before another attempt; ``None`` if none is allowed.

        Args:
            head: the response's head; its ``Retry-After`` takes precedence.
            failure: the failure that the status is.
            now: the driver's clock.
            told: the seconds to wait that the body names.
        """
        how = self._verdict_on_status(failure)
        requested = retry_after(head.fields, self._wall_clock())
        requested = told if requested is None else requested
        is_busy = requested is None and failure is Failure.BUSY
        if is_busy and self._budget.is_exhausted_by(head.status):
            return None
        too_long = requested is not None and requested > self._policy.retry_after_max
        delay = requested or self._budget.clamped_delay(how, failure, self._attempt, now)
        return None if too_long or self._budget.forbids(how, failure, self._attempt, now + delay) else delay

    def _decide_refusal(self, now: float) -> bool:
        """Retry after an error response, or hand it on; return whether another attempt follows."""
        attempt, head = self._attempt, self._head
        assert attempt.noted is not None, "an error response is noted as such"
        if self._recoveries.refuses_background(head, attempt.refusal):
            self._ask_as_written(head.status, now)
            return True
        said = self._call.dialect.read_error(head.status, attempt.refusal)
        hopeful = attempt.noted is not Failure.REFUSED and (should_retry(head) or said.transient)
        delay = self._retry_delay(head, attempt.noted, now, said.retry_after) if hopeful else None
        if delay is not None:
            attempt.phase = Phase.HEADERS
            self._repeat(self._verdict_on_status(attempt.noted), attempt.noted, f"HTTP {head.status}", now, 0.0, delay)
            return True
        if not hopeful:
            attempt.noted = Failure.REFUSED
        if self._refuse_response(now):
            return True
        self._give_head()
        self._give(attempt.release_refusal())
        self._phase = self._attempt.phase
        self._otherwise = Read(self._limits(now))
        return False

    def _ask_as_written(self, status: int, now: float) -> None:
        """Send the request as the caller wrote it: the server refuses what was added."""
        self._attempt.phase = Phase.HEADERS
        detail = f"HTTP {status}: the server does not let responses go on (background)"
        self._repeat(Verdict.RETRY, Failure.REFUSED, detail, now, 0.0, 0.0)

    # State changes

    def _begin(self, now: float) -> Attempt:
        number, recoveries = len(self._records) + 1, self._recoveries
        recoveries.begin(number)
        if recoveries.takes_up:
            attempt = self._attempt
            attempt.take_up(number, now)
        else:
            attempt = Attempt(number, self._call, self._policy, now, recoveries.events)
        self._attempt = attempt
        self._phase = attempt.phase
        self._progress = 0
        self._suspicion = None
        self._todo.append(Send(attempt.number, self._limits(now), self._paths.index, recoveries.request))
        return attempt

    def _repeat(self, how: Verdict, failure: Failure, detail: str, now: float, silent: float, delay: float) -> None:
        recoveries = self._recoveries
        left = self._budget.left(how, failure, self._attempt, now + delay)
        lost = self._record(
            failure, detail, now, silent, runs_on=how in REPLAYS and recoveries.may_run_on(self._attempt, failure)
        )
        self._budget.spend(how, failure, self._attempt, delay)
        action = recoveries.named(how, self._attempt)
        if recoveries.resumer and how in REPLAYS:
            recoveries.resumer.give_up()
        self._go_on(action, lost, left, failure, now, delay)

    def _go_on(
        self, action: RetryAction, lost: AttemptReport, left: int, failure: Failure, now: float, delay: float
    ) -> None:
        """Drop a lost attempt, tell the observer, and begin the next one after a wait."""
        recoveries = self._recoveries
        told = RetryEvent(
            action,
            lost.number,
            lost.number + left,
            failure,
            lost,
            delay,
            lesson(lost) or self.report.advice,
            self._paths.name.name if self._paths.lose(failure, self._attempt.shown_phase) else "",
            recoveries.continuer.character if recoveries.continuer else None,
            recoveries.resumer.next_position if recoveries.resumer else None,
        )
        self._learn(lost)
        if self._may_hold and not recoveries.takes_up:
            self._may_hold(0)
        self._todo += [Drop(), Notify(told), Wait(delay)]
        self._begin(now + delay)

    def _may_replay(self, start: float) -> bool:
        """Return whether the request may be sent again at ``start`` if its path is given up."""
        how = self._verdict(Failure.DEAD_PATH)
        resumer = self._recoveries.resumer
        if resumer and how in _CUTS and not resumer.obstacle:
            return not self._budget.is_too_late(start)
        return how is Verdict.REPLAY and not self._budget.forbids(how, Failure.DEAD_PATH, self._attempt, start)

    def _hand_on_error(self, failure: Failure, now: float) -> None:
        """Hand on an error inside the stream, unaltered; but not inside an answer that another attempt began."""
        if self._recoveries.owed:
            self._raise_error(failure, self._attempt.detail, now, 0.0)
            return
        self._give(self._attempt.release_error(failure))
        self._phase = self._attempt.phase
        self._otherwise = Read(self._limits(now))

    def _finish(self, now: float, silent: float, failure: Failure | None = None, detail: str = "") -> None:
        self._give(self._attempt.rest())
        if not self._give_rest(now):
            return
        self._give_head()
        self._record(self._attempt.noted or failure, detail, now, silent)
        if failure:
            self._todo.append(Drop())
        self._end_with(EndTurn())

    def _raise_error(self, failure: Failure, detail: str, now: float, silent: float, refused: str = "") -> None:
        attempt, recoveries = self._attempt, self._recoveries
        runs_on = recoveries.may_run_on(attempt, failure) and not self.partings
        self._learn(self._record(failure, detail, now, silent, runs_on=runs_on))
        owed, cut_in = recoveries.owed, Phase.OUTPUT
        refused = refused or recoveries.why_not
        if recoveries.resumer and recoveries.takes_up:
            attempt.fall_back()
            failure = recoveries.resumer.loss if failure.row in _ANSWERS else failure
            owed, cut_in = owed or "its rest", cut_in if owed else attempt.phase
        error = turn_error(failure, self.report, self._policy, refused, after_cut=owed, cut_in=cut_in)
        if isinstance(error, StreamCut) and error.phase is Phase.OUTPUT:
            error.ask_rest = recoveries.rest
        if attempt.phase is Phase.OUTPUT and not attempt.has_spoken and attempt.mode is Mode.STREAM:
            error.held = attempt.release()
        self._todo.append(Drop())
        self._end_with(Fail(error))

    def _learn(self, lost: AttemptReport) -> None:
        """Have the path kept busier from now on, if the cut of this attempt teaches that."""
        if lost.lowered_ping is not None:
            self._todo.append(LowerPing(lost.lowered_ping))

    def _raise_misfit(self, problem: str, now: float) -> None:
        self._attempt.failure = Failure.MISFIT
        self._raise_error(Failure.MISFIT, problem, now, 0.0)

    def _refuse_response(self, now: float) -> bool:
        """Raise an error if a response would have to be handed on inside an answer; return whether it was raised."""
        if self._recoveries.takes_up:
            self._fall_back(now)
            return True
        if not (owed := self._recoveries.owed):
            return False
        attempt, status = self._attempt, self._head.status
        attempt.failure = attempt.noted or Failure.OTHER_CONTENT
        if status >= 300:
            attempt.phase = Phase.HEADERS
        self._raise_error(attempt.failure, f"HTTP {status} to the request for {owed}", now, 0.0)
        return True

    def _end_with(self, action: EndTurn | Fail) -> None:
        self._over = True
        self._otherwise = action

    # Handing on

    def _give_head(self) -> None:
        if not self._head_given:
            self._head_given = True
            # Another attempt may add to the body, so its length is not known.
            head = (self._recoveries.resumer and self._attempt.first_head) or self._head
            head = head.without("content-length") if self._recoveries.may_grow(self._attempt) else head
            self._todo.append(GiveHead(head))

    def _give(self, data: bytes) -> None:
        if continuer := self._splicer:
            data = continuer.hand_on(data) if data else b""
        if data:
            self._give_head()
            if self._recoveries.restarter:
                self._todo += self._recoveries.restarter.hand_on(self._attempt.number)
            self._todo.append(Give(data))

    def _give_rest(self, now: float) -> bool:
        """Give what was held for a seam, at the end of the stream; return whether it may end."""
        continuer = self._splicer
        if continuer is None:
            return True
        if rest := continuer.end():
            self._give_head()
            self._todo.append(Give(rest))
        if continuer.problem:
            self._raise_misfit(continuer.problem, now)
        return not continuer.problem

    @property
    def _splicer(self) -> Continuer | None:
        """What the stream passes through, as the rest of the answer may be another attempt's."""
        return self._recoveries.continuer if self._attempt.mode is Mode.STREAM else None

    @property
    def _head(self) -> Head:
        assert self._attempt.head is not None, "nothing is handed on before the headers"
        return self._attempt.head

    # Limits and records

    def _limits(self, now: float) -> Limits:
        until = deadline(self._attempt, self._policy, self._output_limit, now)
        return limits(self._attempt, self._policy, self._timeouts, self._suspicion, self._paths, until)

    def _note_phase(self, now: float) -> bool:
        """Return whether the limits of reading have changed. Record when the attempt leaves its prelude.

        They change with the phase, and once settled with each event: silence is limited, but keepalives are silence.
        """
        attempt = self._attempt
        before, self._phase = self._phase, attempt.phase
        progress, self._progress = self._progress, attempt.progress
        if before is Phase.PRELUDE and self._phase is not before and attempt.noted is not Failure.OTHER_CONTENT:
            attempt.output_at = now
        limits_output = self._output_limit.note(attempt, now)
        counts = limits_output or attempt.phase is Phase.SETTLED
        return self._phase is not before or (counts and self._progress != progress)

    def _record(
        self, failure: Failure | None, detail: str, now: float, silent: float = 0.0, *, runs_on: bool = False
    ) -> AttemptReport:
        record = self._describe(failure, detail, now, silent, runs_on=runs_on)
        self._records.append(record)
        return record

    def _describe(
        self, failure: Failure | None, detail: str, now: float, silent: float, *, runs_on: bool = False
    ) -> AttemptReport:
        resumer = self._recoveries.resumer
        position = resumer.position if resumer else None
        path, started = self._paths.name, self._started
        return record_of(self._attempt, failure, detail, silent, path, started, now, position, runs_on=runs_on)
