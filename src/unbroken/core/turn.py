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

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

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
    PathNotice,
    Prefer,
    Read,
    RetryEvent,
    Send,
    Wait,
)
from unbroken.core.attempt import MAX_REFUSAL, Attempt, Mode
from unbroken.core.dialect import Call
from unbroken.core.failures import GATEWAY_TIMEOUTS, Failure, Phase, Row, Verdict, described, verdict
from unbroken.core.http import Head, Request
from unbroken.core.output_limit import OutputLimit
from unbroken.core.paths import PathChoice, Paths, told_by_path
from unbroken.core.policy import Policy, retry_after
from unbroken.core.report import AttemptReport, Report, lesson, lowered_ping
from unbroken.core.route import RouteRecord
from unbroken.core.suspicion import PathEvent, Recovered, SecondStands, Suspected, Suspicion
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    PartialAnswer,
    RestOfAnswer,
    StreamCut,
    TurnError,
    UnexpectedResponse,
    Unreachable,
)

if TYPE_CHECKING:
    from unbroken.core.continuation.continuer import Continuer
    from unbroken.core.continuation.format import Style

LINGER = 0.5
"""Seconds to wait for the end of the body after its terminator, so that the connection can be used again."""

USAGE_WAIT = 2.0
"""Seconds of silence to wait for the end of the body after the attempt settled and its usage came."""

READ_REFUSAL = 5.0
"""Seconds to wait for the body of an error response before deciding without it."""

NO_BODY = frozenset({*range(100, 200), 204, 205})
"""Statuses of responses without a body (RFC 9110, sections 15.2, 15.3.5 and 15.3.6)."""

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)}) - {511}  # a captive portal (RFC 6585, section 6)

TOO_BUSY = frozenset({429, 529})
"""Statuses that say that the request was not processed, however late (RFC 6585, section 4; Anthropic, "Errors")."""

NOT_PROCESSED = frozenset({408, 409, 425, 503, *TOO_BUSY})
"""Retryable statuses that are not billed; any other may come from a server that failed in the middle of its work."""


NETWORK_AWAY = frozenset(
    {
        Failure.CONNECT_TIMEOUT,
        Failure.NO_ROUTE,
        Failure.DNS_TEMPORARY,
        Failure.PROXY_CANNOT_REACH,
        Failure.PROXY_CLOSED,
    }
)
"""Failures to connect without an answer from anybody but a proxy."""


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
        request: the request, from which the one for the rest of an answer is made.
        continuation: the style in which its server continues an answer, ``None`` for the one that is known of it.
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
    ) -> None:
        self._paths = PathChoice(paths)
        self._call = call
        self._policy = policy.once() if call.single_attempt else policy
        self._random = random
        self._wall_clock = wall_clock
        self._timeouts = timeouts
        self._may_hold = may_hold
        self._started = now
        self._tried_since = now
        self._retries = 0
        self._retries_in_a_row = 0
        self._replays = 0
        self._waits = 0
        self._unreachable_since: float | None = None
        self._records: list[AttemptReport] = []
        self._head_given = False
        self._suspicion: Suspicion | None = None
        self._todo: deque[Action] = deque()
        self._over = False
        self._data_at = now
        self._progress = 0
        self._output_limit = OutputLimit(self._policy.stall_output_timeout, now)
        self._request = request
        self._style = continuation
        self._continuer = self._new_continuer()
        self._attempt = self._begin(now)
        self._otherwise: Action = Read(self._limits(now))

    def _new_continuer(self) -> Continuer | None:
        """Return what continues the answer, if that is to be done."""
        if self._request is None or self._policy.after_output != "continue" or not self._call.streaming:
            return None
        from unbroken.core.continuation.continuer import Continuer  # few turns need it

        return Continuer(self._request, self._call, self._style, self._policy.max_event)

    # Queries of the driver

    def next(self) -> Action:
        """Return the next action. After :class:`EndTurn` or :class:`Fail` the turn is over; it is returned again."""
        while not self._todo and self._attempt.has_more:
            self._take(self._attempt.more(), self._data_at)
        return self._todo.popleft() if self._todo else self._otherwise

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
        return Report(
            attempts=tuple(self._records),
            retries=self._retries,
            replays=self._replays,
            dialect=self._call.dialect.name,
            seams=tuple(self._continuer.seams) if self._continuer else (),
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
        if self._paths.moved and head.status < 300:
            self._todo.append(Prefer(self._paths.index))
        if head.status >= 300:
            attempt.noted = self._judge(head, now - attempt.started)
            retryable = attempt.noted is not Failure.REFUSED and self._retry_delay(head, attempt.noted, now) is not None
            attempt.open(head, Mode.REFUSAL if retryable else Mode.OPAQUE)
        elif self._call.expects(head):
            attempt.open(head, Mode.STREAM if self._call.streaming else Mode.WHOLE)
        elif head.status not in NO_BODY:
            attempt.open(head, Mode.SNIFFING)
        else:
            attempt.noted = Failure.OTHER_CONTENT
            attempt.open(head, Mode.OPAQUE)
        self._phase = attempt.phase
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

    def end(self, now: float, silent: float = 0.0, route: RouteRecord | None = None) -> None:
        """Take the end of the body, which is clean by HTTP's framing; the rest as for :meth:`lost`."""
        attempt = self._attempt
        attempt.route = route or attempt.route
        if attempt.mode is Mode.REFUSAL and self._decide_refusal(now):
            return
        self._give(attempt.end())
        self._note_phase(now)
        if attempt.failure:
            self._lose(attempt.failure, attempt.detail, now, silent)
        if attempt is self._attempt and not self._over:  # not lost, or an error that was handed on
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
        self._record(attempt.noted if ended else Failure.CANCELLED, "", now)
        self._end_with(EndTurn())

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
        speaks = released and not self._head_given
        self._give(released)
        changed = self._note_phase(now)
        if self._continuer and self._continuer.problem:
            self._raise_misfit(self._continuer.problem, now)
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
            self._tried_since = now  # what is held is lost only now, however long it took to come
        how = verdict(failure, self._attempt.shown_phase)
        if how is Verdict.ERROR and self._paths.successor(failure, self._attempt.shown_phase) is not None:
            how = Verdict.RETRY
        match how:
            case Verdict.END:
                self._finish(now, silent, failure, detail)
            case Verdict.HAND_ON:
                self._hand_on_error(failure, now)
            case Verdict.RETRY | Verdict.RETRY_BRIEFLY | Verdict.REPLAY | Verdict.REPLAY_WITH_BACKOFF:
                self._resend(how, failure, detail, now, silent)
            case Verdict.CUT if self._continuer and self._is_spliced:
                self._continue(self._continuer, failure, detail, now, silent)
            case _:
                self._raise_error(failure, detail, now, silent)

    def _resend(self, how: Verdict, failure: Failure, detail: str, now: float, silent: float) -> None:
        is_new_path = self._paths.is_new(self._paths.successor(failure, self._attempt.shown_phase))
        delay = 0.0 if is_new_path else self._clamped(self._delay(how), failure, now)
        if (told := self._attempt.retry_after) is not None and how is Verdict.REPLAY_WITH_BACKOFF:
            delay = told
        refused = self._forbids(how, failure, now + delay, is_new_path=is_new_path)
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
        self._tried_since = now
        delay = self._delay(Verdict.REPLAY)
        refused = self._forbids(Verdict.REPLAY, failure, now + delay) or continuer.plan()
        if refused:
            self._raise_error(failure, detail, now, silent, f"not continued: {refused}")
        else:
            self._repeat(Verdict.REPLAY, failure, detail, now, silent, delay)

    def _judge(self, head: Head, elapsed: float) -> Failure:
        """Return what an error status is: busy, a gateway that gave up, or a refusal.

        ``x-should-retry`` (OpenAI) takes precedence over the status, and ``Retry-After`` over its delay.
        """
        status, said = head.status, _should_retry(head)
        if status < 400 or not (status in RETRYABLE_STATUSES if said is None else said):
            return Failure.REFUSED
        if status in GATEWAY_TIMEOUTS:
            return Failure.GATEWAY_GAVE_UP
        prompt = elapsed <= self._policy.slow_status_after or status in TOO_BUSY
        names_wait = retry_after(head.fields, self._wall_clock()) is not None
        return Failure.BUSY if prompt or names_wait else Failure.GATEWAY_GAVE_UP

    def _retry_delay(self, head: Head, failure: Failure, now: float, told: float | None = None) -> float | None:
        """Return the seconds to wait after an error status before another attempt; ``None`` if none is allowed.

        Args:
            head: the response's head; its ``Retry-After`` takes precedence.
            failure: the failure that the status is.
            now: the driver's clock.
            told: the seconds to wait that the body names.
        """
        how = verdict(failure, Phase.HEADERS)
        requested = retry_after(head.fields, self._wall_clock())
        requested = told if requested is None else requested
        is_busy = requested is None and failure is Failure.BUSY
        if is_busy and self._retried(head.status) >= self._policy.same_status_retries:
            return None
        too_long = requested is not None and requested > self._policy.retry_after_max
        delay = requested or self._clamped(self._delay(how), failure, now)
        return None if too_long or self._forbids(how, failure, now + delay) else delay

    def _decide_refusal(self, now: float) -> bool:
        """Retry after an error response, or hand it on; return whether another attempt follows."""
        attempt, head = self._attempt, self._head
        assert attempt.noted is not None, "an error response is noted as such"
        said = self._call.dialect.read_error(head.status, attempt.refusal)
        hopeful = _should_retry(head) or said.transient
        delay = self._retry_delay(head, attempt.noted, now, said.retry_after) if hopeful else None
        if delay is not None:
            attempt.phase = Phase.HEADERS
            self._repeat(verdict(attempt.noted, Phase.HEADERS), attempt.noted, f"HTTP {head.status}", now, 0.0, delay)
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

    def _delay(self, how: Verdict) -> float:
        """Return the seconds to wait: none before the first replay, otherwise the backoff."""
        if how is Verdict.REPLAY and self._replays == 0:
            return 0.0
        return self._policy.backoff(self._waits, self._random)

    def _clamped(self, delay: float, failure: Failure, now: float) -> float:
        """Return a wait of our own that does not go beyond a limit, so that the last attempt starts at the limit."""
        limit = self._limit(failure)
        return min(delay, limit - now) if now < limit else delay

    def _limit(self, failure: Failure) -> float:
        """Return the time after which no further attempt starts."""
        limit = self._tried_since + self._policy.give_up_after
        if failure.row is Row.UNREACHABLE and not self._is_away(failure):
            since = self._attempt.started if self._unreachable_since is None else self._unreachable_since
            limit = min(limit, since + self._policy.unreachable_for)
        return limit

    def _is_away(self, failure: Failure) -> bool:
        """Return whether the network is away from a turn that was connected before: it is waited for."""
        was_connected = any(lost.phase is not Phase.CONNECT for lost in self._records)
        return was_connected and failure in NETWORK_AWAY

    def _retried(self, status: int) -> int:
        """Return how often in a row this status was retried just now."""
        busy = (lost.status if lost.failure == Failure.BUSY.code else None for lost in reversed(self._records))
        return sum(1 for _ in itertools.takewhile(lambda last: last == status, busy))

    def _forbids(self, how: Verdict, failure: Failure, start: float, *, is_new_path: bool = False) -> str:
        """Return why another attempt, starting at ``start``, is not allowed; ``""`` if it is."""
        policy = self._policy
        counts_as_replay = how in (Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF)
        if counts_as_replay and self._call.generation.acts and not policy.replay_side_effects:
            return "not replayed: the call acts on the world"
        replays = policy.replays_on(self._attempt.route)
        if counts_as_replay and self._replays >= replays:
            return f"{_times(replays, 'replay')} used up" if replays else "no replays allowed"
        counts = not counts_as_replay and not (policy.retries and self._is_away(failure))
        if counts and self._retries_in_a_row >= policy.retries:
            return f"{_times(policy.retries, 'retry', 'retries')} used up" if policy.retries else "no retries allowed"
        if start > self._tried_since + policy.give_up_after:
            return f"gave up after {policy.give_up_after:g} s, the limit of Policy.give_up_after and --give-up-after"
        tried = f"tried for {policy.unreachable_for:g} s, the limit of Policy.unreachable_for"
        return tried if start > self._limit(failure) and not is_new_path else ""

    # State changes

    def _begin(self, now: float) -> Attempt:
        attempt = Attempt(len(self._records) + 1, self._call, self._policy, now)
        self._attempt = attempt
        self._phase = attempt.phase
        self._progress = 0
        self._suspicion = None
        if self._continuer:
            self._continuer.begin(attempt.number)
        request = self._continuer.request if self._continuer else None
        self._todo.append(Send(attempt.number, self._limits(now), self._paths.index, request))
        return attempt

    def _repeat(self, how: Verdict, failure: Failure, detail: str, now: float, silent: float, delay: float) -> None:
        replay = how in (Verdict.REPLAY, Verdict.REPLAY_WITH_BACKOFF)
        left = self._left(replay, failure, now + delay)
        lost = self._record(failure, detail, now, silent)
        if failure.row is not Row.UNREACHABLE:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = self._attempt.started
        self._replays += replay
        self._retries += not replay
        self._retries_in_a_row = 0 if replay else self._retries_in_a_row + (not self._is_away(failure))
        self._waits += delay > 0
        character = self._continuer.character if self._continuer else None
        action: Literal["retry", "replay", "continue"] = "replay" if replay else "retry"
        told = RetryEvent(
            action if character is None or not replay else "continue",
            lost.number,
            lost.number + left,
            failure,
            lost,
            delay,
            lesson(lost) or self.report.advice,
            self._paths.name.name if self._paths.lose(failure, self._attempt.shown_phase) else "",
            character,
        )
        self._learn(lost)
        if self._may_hold:
            self._may_hold(0)
        self._todo += [Drop(), Notify(told), Wait(delay)]
        self._begin(now + delay)

    def _may_replay(self, start: float) -> bool:
        """Return whether the request may be sent again at ``start`` if its path is given up."""
        how = verdict(Failure.DEAD_PATH, self._attempt.shown_phase)
        return how is Verdict.REPLAY and not self._forbids(how, Failure.DEAD_PATH, start)

    def _left(self, replay: bool, failure: Failure, start: float) -> int:
        """Return how many further attempts the budget and the limit allow, the one at ``start`` among them."""
        if replay:
            return self._policy.replays_on(self._attempt.route) - self._replays
        waits, limit = self._waits + 1, self._limit(failure)
        left = self._policy.retries - self._retries_in_a_row  # waiting for the network uses none of them up
        possible = 1
        while possible < left and start < limit:
            start += self._policy.backoff(waits, lambda: 1.0)
            waits, possible = waits + 1, possible + 1
        return possible

    def _hand_on_error(self, failure: Failure, now: float) -> None:
        """Hand on an error inside the stream, unaltered; but not inside an answer that another attempt began."""
        if self._continues:
            self._raise_error(failure, self._attempt.detail, now, 0.0)
            return
        self._give(self._attempt.release_error(failure))
        self._phase = self._attempt.phase
        self._otherwise = Read(self._limits(now))

    def _finish(self, now: float, silent: float, failure: Failure | None = None, detail: str = "") -> None:
        if not self._give_rest(now):
            return
        self._give_head()
        self._record(self._attempt.noted or failure, detail, now, silent)
        if failure:
            self._todo.append(Drop())
        self._end_with(EndTurn())

    def _raise_error(self, failure: Failure, detail: str, now: float, silent: float, refused: str = "") -> None:
        record, attempt = self._record(failure, detail, now, silent), self._attempt
        self._learn(record)
        error = self._error(failure, record, refused)
        if record.held and attempt.mode is Mode.STREAM:
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
        if not self._continues:
            return False
        attempt, status = self._attempt, self._head.status
        attempt.failure = attempt.noted or Failure.OTHER_CONTENT
        if status >= 300:
            attempt.phase = Phase.HEADERS
        self._raise_error(attempt.failure, f"HTTP {status} to the request for the rest of the answer", now, 0.0)
        return True

    def _end_with(self, action: EndTurn | Fail) -> None:
        self._over = True
        self._otherwise = action

    def _error(self, failure: Failure, record: AttemptReport, refused: str) -> TurnError:
        phase, report = self._attempt.phase, self.report
        happened = told_by_path((one.path, described(one.failure, one.detail)) for one in self._records)
        lost = f"; {_times(len(report.attempts), 'attempt')} in all" if len(report.attempts) > 1 else ""
        advice = f"; {report.advice}" if report.advice else ""
        because = f" ({refused}{lost})" if refused else ""
        retryable = failure.row in (Row.LOST, Row.UNPROCESSED, Row.UNREACHABLE)
        if self._continues and failure is not Failure.CALLER_TIMEOUT:  # whatever failed, what the caller has is cut
            message = f"the answer was cut, and its rest did not come: {happened}{because}{advice}"
            return self._cut(message, Phase.OUTPUT, retryable=retryable, report=report)
        if failure.row is Row.MALFORMED:
            return MalformedStream(f"the stream is broken: {happened}", phase=phase, report=report)
        if failure is Failure.CALLER_TIMEOUT:
            return CallerTimeout(record.detail, phase=phase, report=report)
        if failure.row is Row.NO_OUTPUT:
            limit = self._policy.first_output_timeout
            message = (
                f"no output within {limit:g} s; raise the limit if the model may think longer"
                " (Policy.first_output_timeout, --first-output)"
            )
            return FirstOutputTimeout(message, phase=phase, retryable=True, report=report)
        if failure.row is Row.UNREADABLE:
            status = record.status or 0
            return UnexpectedResponse(f"{failure.phrase}: {record.detail}", status=status, phase=phase, report=report)
        if phase is Phase.CONNECT or failure.row is Row.MISCONFIGURED:
            return Unreachable(f"{happened}{because}", phase=phase, retryable=retryable, report=report)
        waiting = phase in (Phase.HEADERS, Phase.PRELUDE)
        when = "before any output" if waiting else "after output: the answer is not whole"
        when = "after output, of which nothing was handed on" if record.held else when
        message = f"the stream was cut after {record.elapsed:.1f} s, {when}: {happened}{because}{advice}"
        return self._cut(message, phase, retryable=retryable, report=report)

    def _cut(self, message: str, phase: Phase, *, retryable: bool, report: Report) -> StreamCut:
        error = StreamCut(message, phase=phase, retryable=retryable, report=report)
        if phase is Phase.OUTPUT:
            error.ask_rest = self._rest
        return error

    def _rest(self, partial: PartialAnswer | None) -> RestOfAnswer:
        """Return how a program can ask for the rest of the answer by itself."""
        if self._continuer:
            return self._continuer.rest()
        from unbroken.core.continuation.request import PartialTranscript, rest_of

        transcript = PartialTranscript(partial) if partial else None
        return rest_of(self._request, self._call.dialect.continuation(), self._style, transcript)

    # Handing on

    def _give_head(self) -> None:
        if not self._head_given:
            self._head_given = True
            # Another attempt may add to the body, so its length is not known.
            head = self._head.without("content-length") if self._is_spliced else self._head
            self._todo.append(GiveHead(head))

    def _give(self, data: bytes) -> None:
        if self._continuer and data and self._is_spliced:
            data = self._continuer.hand_on(data)
        if data:
            self._give_head()
            self._todo.append(Give(data))

    def _give_rest(self, now: float) -> bool:
        """Give what was held for a seam, at the end of the stream; return whether it may end."""
        if self._continuer is None or not self._is_spliced:
            return True
        if rest := self._continuer.end():
            self._give_head()
            self._todo.append(Give(rest))
        if self._continuer.problem:
            self._raise_misfit(self._continuer.problem, now)
        return not self._continuer.problem

    @property
    def _is_spliced(self) -> bool:
        """Whether the rest of the answer may be another attempt's."""
        return self._continuer is not None and self._attempt.mode is Mode.STREAM

    @property
    def _continues(self) -> bool:
        """Whether the running attempt continues an answer that another one began."""
        return self._continuer is not None and self._continuer.request is not None

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
            nothing_owed = attempt.usage_came or attempt.noted is not None
            until = now + (min(USAGE_WAIT, policy.settle_timeout) if nothing_owed else policy.settle_timeout)
        elif attempt.phase is not Phase.OUTPUT:
            until = attempt.started + policy.first_output_timeout
        else:
            until = self._output_limit.until(attempt)
        has_output = attempt.phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
        suspicion = self._suspicion
        return Limits(
            policy.connect_timeout,
            policy.idle_timeout,
            until,
            policy.ping_interval,
            policy.ping_timeout,
            self._timeouts,
            policy.stall_timeout if has_output else None,
            suspicion.probe if suspicion else None,
            suspicion.revive if suspicion else None,
            self._paths.beside(suspicion.failed) if suspicion and suspicion.probe is not None else None,
        )

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

    def _record(self, failure: Failure | None, detail: str, now: float, silent: float = 0.0) -> AttemptReport:
        record = self._describe(failure, detail, now, silent)
        self._records.append(record)
        return record

    def _describe(self, failure: Failure | None, detail: str, now: float, silent: float) -> AttemptReport:
        attempt = self._attempt
        head = attempt.head
        if failure is Failure.GATEWAY_GAVE_UP:
            silent = attempt.route.waited  # the silence that its status ended
        record = AttemptReport(
            number=attempt.number,
            phase=attempt.phase,
            failure=failure.code if failure else None,
            detail=detail,
            status=head.status if head else None,
            after=max(0.0, attempt.started - self._started),
            headers_after=_since(attempt.started, attempt.headers_at),
            output_after=_since(attempt.started, attempt.output_at),
            elapsed=max(0.0, now - attempt.started),
            silent=silent,
            http_version=head.http_version if head else attempt.route.http_version,
            route=attempt.route,
            billed=self._billed(failure),
            held=attempt.phase is Phase.OUTPUT and not attempt.has_spoken,
            finish_reason=attempt.finish_reason or None,
            path=self._paths.name.name,
            path_source=self._paths.name.source,
        )
        return msgspec.structs.replace(record, lowered_ping=lowered_ping(record))

    def _billed(self, failure: Failure | None) -> Literal["no", "unknown", "yes"]:
        phase, noted = self._attempt.phase, self._attempt.noted
        spoke = phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE) and self._attempt.mode is not Mode.OPAQUE
        if spoke and not noted:
            return "yes"  # regardless of what the server sent afterwards
        if phase is Phase.CONNECT or (failure and failure.row in (Row.UNPROCESSED, Row.REFUSED)):
            return "no"
        if failure is Failure.BUSY and self._attempt.head and self._attempt.head.status in NOT_PROCESSED:
            return "no"
        return "unknown"


def _should_retry(head: Head) -> bool | None:
    """Return the value of ``x-should-retry``; ``None`` if it is missing or unknown."""
    return {"true": True, "false": False}.get(head.fields.get("x-should-retry", "").strip().lower())


def _since(started: float, moment: float | None) -> float | None:
    return None if moment is None else moment - started


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
