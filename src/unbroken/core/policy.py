"""The limits of a turn, and the backoff between its attempts.

The backoff before the n-th wait (n from 0) is::

    delay(n) = min(backoff_max, backoff_initial * 2**n) * (1 - random() / 2)

that is, exponential growth with jitter in the upper half: clients that were cut together do not return together, and no
wait is shorter than half of its step. ``Retry-After`` replaces it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from unbroken.core.failures import Failure
from unbroken.core.route import RouteRecord
from unbroken.errors import UsageError

Hold: TypeAlias = Literal["prelude", "reasoning", "answer"]
"""How much of an attempt is held before it speaks; see :attr:`Policy.hold`."""

HOLDS: tuple[Hold, ...] = get_args(Hold)

AfterOutput: TypeAlias = Literal["raise", "continue", "restart"]
"""What is done about a cut after the first output; see :attr:`Policy.after_output`."""

AFTER_OUTPUT: tuple[AfterOutput, ...] = get_args(AfterOutput)

USUAL_REPLAYS = 3

LOCAL_REPLAYS = 8
"""Replays for a model of one's own: nobody bills them, and each finds more of its prompt in the server's cache."""

_NEVER_ZERO = (
    *("connect_timeout", "idle_timeout", "stall_timeout", "stall_output_timeout"),
    *("first_output_timeout", "ping_timeout", "max_event"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of one turn. All durations are float seconds, all sizes bytes.

    Attributes:
        retries: how often a request that was provably not processed (never sent, or refused by a prompt status such as
            429) may be sent again; the count restarts after each replay.
        replays: how often a request that was sent and lost may be sent again. Each may have been billed; one counter
            for the whole turn. ``None`` for :data:`USUAL_REPLAYS`, or :data:`LOCAL_REPLAYS` for a local model.
        resumes: how often in a row, without a new event in between, the stream of a response is taken up that goes on
            at the server (a Responses call with ``background``). It costs no generation.
        give_up_after: no further attempt *starts* later than this after the turn began, or after the loss of an attempt
            whose output was held, or of one whose response is taken up. Longer than ``idle_timeout``, so that a turn is
            replayed that was lost by it.
        connect_timeout: limit for name resolution, connection, proxy and TLS together.
        unreachable_for: how long an unreachable server or proxy is tried again, in all.
        idle_timeout: silence on the wire after which a connection counts as lost. Answers to PING are not silence.
        stall_timeout: silence of the response after its first output, after which the connection counts as lost,
            although PING is answered: the nearest HTTP/2 hop answers it. The server's own comments and pings are no
            silence.
        stall_output_timeout: time without *output* after the first one, whatever else comes, after which the connection
            counts as lost; ``None`` for no limit. It rests while a tool of the server runs and while the caller does
            not read. Each event is then read, also after the first output.
        first_output_timeout: limit from an attempt's start to the model's first output; comments and pings do not
            extend it.
        settle_timeout: silence after the attempt settled, after which the stream ends normally. After a report of usage
            2 seconds are enough.
        ping_interval: interval of HTTP/2 PING; 0 turns it off. Without HTTP/2 it is the interval of TCP keepalive.
        ping_timeout: time without an answer to a PING, or any other byte, after which the path is suspected: until
            output is handed on a second connection is tried beside it. Over HTTP/1.1 it is the time without an answer
            of TCP, where the system tells it (Linux); elsewhere only ``idle_timeout`` finds a dead path.
        revive: how long a suspected path has to come back once a second connection stands, before the request is sent
            on that one.
        backoff_initial: the first wait.
        backoff_max: the longest wait.
        retry_after_max: a ``Retry-After`` beyond this is not waited for; the response is handed on.
        slow_status_after: a retryable status that took longer than this counts as a gateway's idle timer: the request
            may have been processed. 429, 529 and a status with ``Retry-After`` never do, 504 and 524 always.
        same_status_retries: how often in a row one and the same status is retried, if it comes without ``Retry-After``.
        hold: how much of an attempt is held before it speaks; what is held can be replayed. ``"prelude"``: what comes
            before the model's first output. ``"reasoning"``: its reasoning too, up to the first text, refusal or tool
            call, or anything that is not known to be reasoning. ``"answer"``: everything, until the attempt has said
            how it ended. A call that is not streamed is always held whole.
        max_hold: cap of what is held of one attempt where more than the prelude is, or the whole answer of a call that
            is not streamed; beyond it the attempt speaks.
        max_prelude: cap of the prelude where nothing else is held; a larger one counts as output.
        max_event: cap of one event.
        replay_side_effects: replay even calls whose server-side tools have side effects.
        accept_done: take a terminator for a proof that the answer is whole, although the server did not say how it
            ended: for servers that never say. Gateways that send a terminator after a cut exist.
        after_output: what is done about a cut after the first output. ``"raise"``: :class:`unbroken.StreamCut`.
            ``"continue"``: the rest is asked for with the text so far as the beginning of the answer, where the server
            is known to continue it and the request allows it exactly; it counts in ``replays``. ``"restart"``: the
            answer begins again, in the typed client alone, which tells it by an event; it counts in ``replays``.

        background: make responses resumable although the caller did not ask for it, where the format has that:
            ``background`` is added to a streaming Responses call, ``store`` stays as it is. Such data are kept at the
            server for some minutes, and a start is slower. Calls that act on the world are left as they are, and so is
            one whose server refuses it.

    Raises:
        UsageError: a limit that is negative or not a number, or 0 where nothing could succeed; an unknown choice.
    """

    retries: int = 10
    replays: int | None = None
    give_up_after: float = 900.0
    resumes: int = 10
    connect_timeout: float = 10.0
    unreachable_for: float = 10.0
    idle_timeout: float = 600.0
    stall_timeout: float = 600.0
    stall_output_timeout: float | None = None
    first_output_timeout: float = 900.0
    settle_timeout: float = 20.0
    ping_interval: float = 10.0
    ping_timeout: float = 20.0
    revive: float = 30.0
    backoff_initial: float = 0.5
    backoff_max: float = 15.0
    retry_after_max: float = 60.0
    slow_status_after: float = 5.0
    same_status_retries: int = 5
    hold: Hold = "prelude"
    max_hold: int = 64 * 1024 * 1024
    max_prelude: int = 1024 * 1024
    max_event: int = 16 * 1024 * 1024
    replay_side_effects: bool = False
    accept_done: bool = False
    after_output: AfterOutput = "raise"
    background: bool = False

    def __post_init__(self) -> None:
        hold_named(self.hold)
        after_output_named(self.after_output)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("hold", "after_output") or (value is None and field.default is None):
                continue
            if not value >= 0:  # NaN too
                raise UsageError(f"{field.name} cannot be {value!r}: it must be 0 or more")
        for name in _NEVER_ZERO:
            if getattr(self, name) == 0:
                raise UsageError(f"{name} cannot be 0: nothing would ever succeed")

    def once(self) -> Policy:
        """Return the policy with a single attempt, for a request that is already an SDK's retry."""
        return dataclasses.replace(self, retries=0, replays=0)

    def unless_set(self, replays: int | None) -> Policy:
        """Return the policy with this number of replays, unless it has one or ``replays`` is ``None``."""
        return self if replays is None or self.replays is not None else dataclasses.replace(self, replays=replays)

    def named_limit(self, failure: Failure) -> str:
        """Return which limit of the policy a failure is, by its options; ``""`` if it is not a limit."""
        match failure:
            case Failure.IDLE_TIMEOUT:
                return f"nothing for {self.idle_timeout:g} s, the limit of Policy.idle_timeout and --idle"
            case Failure.STALLED:
                return f"nothing for {self.stall_timeout:g} s, the limit of Policy.stall_timeout and --stall"
            case Failure.STALLED_OUTPUT if (limit := self.stall_output_timeout) is not None:
                return f"none for {limit:g} s, the limit of Policy.stall_output_timeout and --stall-output"
        return ""

    def replays_on(self, route: RouteRecord) -> int:
        """Return the number of replays on a path. A model of one's own behind a proxy gets as many as a local one."""
        if self.replays is not None:
            return self.replays
        return LOCAL_REPLAYS if route.proxy and route.is_local else USUAL_REPLAYS

    def backoff(self, waits: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after ``waits`` earlier waits; the module's docstring has the formula."""
        step = self.backoff_initial * 2.0 ** min(waits, 64)
        return min(self.backoff_max, step) * (1 - random() / 2)


def hold_named(value: object) -> Hold:
    """Return the choice of :attr:`Policy.hold` that a caller has named.

    Raises:
        UsageError: it is none of the three.
    """
    if value not in HOLDS:
        raise UsageError(f"hold cannot be {value!r}: it must be {', '.join(HOLDS[:-1])} or {HOLDS[-1]}")
    return value


def after_output_named(value: object) -> AfterOutput:
    """Return the choice of :attr:`Policy.after_output` that a caller has named.

    Raises:
        UsageError: there is no such choice.
    """
    if value not in AFTER_OUTPUT:
        raise UsageError(
            f"after_output cannot be {value!r}: it must be {', '.join(AFTER_OUTPUT[:-1])} or {AFTER_OUTPUT[-1]}"
        )
    return value


def refuse_restart(policy: Policy, where: str) -> None:
    """Refuse a policy that has answers begin again, where the caller reads bytes and cannot be told.

    Raises:
        UsageError: it does; the message begins with ``where``.
    """
    if policy.after_output == "restart":
        raise UsageError(
            f'{where} cannot begin an answer again (after_output is "restart"): it hands on bytes, which cannot say so;'
            " to hold the whole answer (Policy.hold, --hold answer) replays it unseen"
        )


def retry_after(headers: Mapping[str, str], wall_clock: float) -> float | None:
    """Return the seconds that a response asks to wait, or ``None`` if it does not say.

    Reads ``retry-after-ms`` (milliseconds, sent by OpenAI and Azure) and ``Retry-After`` (RFC 9110, section 10.2.3:
    seconds or an HTTP date).

    Args:
        headers: response headers, names in lower case.
        wall_clock: now, in seconds since the epoch; only a date needs it.
    """
    if (milliseconds := _seconds(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "").strip()
    if (seconds := _seconds(value)) is not None or not value:
        return seconds
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # costs as much to import as the rest of the core; dates are rare

    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_clock)
    except (ValueError, OverflowError):
        return None


def _seconds(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
