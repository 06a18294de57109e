"""Records of requests and turns: one for each request, the turns that run, and counts."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import msgspec

from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.advice import SilentCut, advice
from unbroken.core.dialect import GatewayError
from unbroken.core.failures import Failure, Phase
from unbroken.core.report import AttemptReport, Report, silent_cuts
from unbroken.errors import FirstOutputTimeout, MalformedStream, StreamCut, TurnError, Unreachable
from unbroken.relay.client_request import ClientRequest

if TYPE_CHECKING:
    from unbroken.relay.kept.collection import Collection
    from unbroken.relay.passthrough import Passthrough
    from unbroken.relay.turns import RelayedTurn

RECENT = 100
"""How many ended turns are kept."""

LIVE = 200
"""How many running turns are shown: more than a person can watch."""

CUTS = 1000
"""How many cuts are kept."""


class Outcome(enum.StrEnum):
    """The outcome of a request for its client."""

    ANSWERED = "answered"
    """One whole answer."""
    REFUSED = "refused"
    """The upstream's error status was handed on."""
    FAILED = "failed"
    """The provider's error inside the stream was handed on."""
    UNEXPECTED = "unexpected"
    """A response of another kind than was asked for was handed on, such as an HTML page."""
    CUT = "cut"
    """The stream was lost after output."""
    LOST = "lost"
    """The stream was lost before any output was handed on, and the budget is used up."""
    TIMED_OUT = "timed_out"
    """The model produced nothing in time."""
    UNREACHABLE = "unreachable"
    """No request got through."""
    MALFORMED = "malformed"
    """The stream broke its own format."""
    LEFT = "left"
    """The client went away."""
    STOPPED = "stopped"
    """The relay was stopped."""
    KEPT = "kept"
    """The client went away; the whole answer is kept, for it to collect."""
    COLLECTED = "collected"
    """Not a turn of its own: what was kept of another request's turn was handed over."""
    PASSED = "passed"
    """Not a generation call: it was passed through."""
    REJECTED = "rejected"
    """The relay itself refused it: token, host, limits, no such route."""
    DEFECT = "defect"
    """The relay itself failed: a bug, which its log describes."""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request, running or ended: figures and codes, never content or keys.

    Attributes:
        id: its id in headers and logs.
        started: seconds since the epoch.
        elapsed: seconds from its start to now or to its end.
        method: method of the request.
        path: path of the request, without its query.
        upstream: name of the upstream, ``None`` if it was not forwarded.
        dialect: name of the dialect, ``None`` if it was not a generation call.
        streaming: whether events were asked for.
        status: the HTTP status that was sent, ``None`` if none was.
        outcome: how it ended, ``None`` while it runs.
        first_output: seconds until the model's first output, ``None`` if there was none.
        bytes_in: bytes of the request's body.
        bytes_out: bytes of the response's body.
        heartbeats: how many heartbeats were sent to the client.
        attempts: every attempt upstream; while the turn runs the last one is running.
        retries: how many attempts were made because one was provably not processed.
        replays: how many attempts were made because one was lost.
        seams: at which characters the text was continued after a cut.
        resumes: after which events the stream was taken up after a cut.
        background: what a person should know of :attr:`unbroken.Policy.background` in this turn, or ``""``.
        unacknowledged: what the server did not acknowledge of a response that was to go on: ``cancel``, ``delete``.
        detail: one line for a person if it failed, or ``""``.
        suspicion: what is waited for of a path that does not answer, or ``""``.
    """

    id: str
    started: float
    elapsed: float
    method: str
    path: str
    upstream: str | None = None
    dialect: str | None = None
    streaming: bool = False
    status: int | None = None
    outcome: Outcome | None = None
    first_output: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    heartbeats: int = 0
    attempts: tuple[AttemptReport, ...] = ()
    retries: int = 0
    replays: int = 0
    seams: tuple[int, ...] = ()
    resumes: tuple[str, ...] = ()
    background: str = ""
    unacknowledged: tuple[str, ...] = ()
    detail: str = ""
    suspicion: str = ""

    @property
    def is_turn(self) -> bool:
        """Whether it is a generation call."""
        return self.dialect is not None

    @property
    def saved(self) -> bool:
        """Whether it was answered although an attempt had been lost."""
        return self.outcome is Outcome.ANSWERED and len(self.attempts) > 1

    @property
    def cuts(self) -> list[SilentCut]:
        """Every attempt that was cut in silence, before its first output."""
        return silent_cuts(self.attempts, self.started)


class Totals(msgspec.Struct):
    """Counts since the start.

    Attributes:
        turns: how many have ended.
        answered: how many of them with a whole answer.
        saved: how many of those had lost an attempt before.
        cut: how many were lost, before or after output.
        passed: how many requests were passed through.
    """

    turns: int = 0
    answered: int = 0
    saved: int = 0
    cut: int = 0
    passed: int = 0


class KeptCount(msgspec.Struct, frozen=True):
    """How many turns whose client had gone, and what they are worth.

    Attributes:
        turns: how many.
        tokens: their output tokens, as reported or estimated, see :class:`unbroken.relay.kept.worth.Worth`.
    """

    turns: int = 0
    tokens: int = 0

    def __add__(self, other: KeptCount) -> KeptCount:
        return KeptCount(self.turns + other.turns, self.tokens + other.tokens)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a relay at one moment, or what is new since another one.

    Attributes:
        version: Unbroken's version.
        started: when the relay was started, in seconds since the epoch.
        now: the time of the snapshot.
        upstreams: the names of the upstreams.
        running: how many turns run.
        live: the oldest of them.
        recent: the last turns that ended, newest first.
        cuts: the last cuts, oldest first.
        advice: what to do about these cuts, or ``""``.
        totals: counts.
        store_problem: why turns cannot be collected, or ``""``.
        kept: turns whose client had gone, by what became of them: ``kept``, ``collected``, ``dropped``; left out while
            there were none.
        shows: of which relays this is the state, where there may be others; left out where there are none.
    """

    version: str
    started: float
    now: float
    upstreams: tuple[str, ...]
    running: int
    live: tuple[RequestRecord, ...]
    recent: tuple[RequestRecord, ...]
    cuts: tuple[SilentCut, ...]
    advice: str
    totals: Totals
    store_problem: str = ""
    kept: dict[str, KeptCount] | msgspec.UnsetType = msgspec.UNSET
    shows: str | msgspec.UnsetType = msgspec.UNSET


class Observer(Protocol):
    """An observer of requests and turns: the access log, the metrics."""

    def started(self) -> None:
        """Handle a turn that has started."""

    def retried(self, turn_id: str, event: RetryEvent) -> None:
        """Handle an attempt of a turn that was lost, and that another one follows."""

    def noticed(self, turn_id: str, notice: PathNotice) -> None:
        """Handle a path of a turn that does not answer, or answers again."""

    def ended(self, record: RequestRecord) -> None:
        """Handle a request that has ended."""


class Recorder:
    """A recorder of requests and turns, which notifies observers.

    Args:
        observers: called at every event.

    Attributes:
        live: the turns that run, by their ids.
        recent: the last turns that ended, newest first.
        cuts: the last cuts, oldest first.
        totals: counts.
        kept: see :class:`Snapshot`.
        store_problem: why turns cannot be collected, or ``""``.
    """

    def __init__(self, *observers: Observer) -> None:
        self.live: dict[str, RelayedTurn] = {}
        self.recent: deque[RequestRecord] = deque(maxlen=RECENT)
        self.cuts: deque[SilentCut] = deque(maxlen=CUTS)
        self.totals = Totals()
        self.kept: dict[str, KeptCount] = {}
        self.store_problem = ""
        self._observers = observers
        self._started = time.time()

    def start(self, turn: RelayedTurn) -> None:
        """Register a turn that starts."""
        self.live[turn.id] = turn
        for observer in self._observers:
            observer.started()

    def retry(self, turn_id: str, event: RetryEvent) -> None:
        """Record that an attempt of a turn was lost, and that another one follows."""
        for observer in self._observers:
            observer.retried(turn_id, event)

    def notice(self, turn_id: str, notice: PathNotice) -> None:
        """Record that the path of a turn does not answer, or answers again."""
        for observer in self._observers:
            observer.noticed(turn_id, notice)

    def end(self, record: RequestRecord) -> None:
        """Record the end of a request, turn or not."""
        if record.is_turn:
            self.live.pop(record.id, None)
            self.recent.appendleft(record)
            self.cuts.extend(record.cuts)
        self._count(record)
        for observer in self._observers:
            observer.ended(record)

    def count_kept(self, event: str, tokens: int) -> None:
        """Count what became of a turn whose client had gone, and its tokens."""
        self.kept[event] = self.kept.get(event, KeptCount()) + KeptCount(1, tokens)

    def snapshot(self, version: str, upstreams: tuple[str, ...], since: int = 0, shows: str = "") -> Snapshot:
        """Return the current state; of the turns that have ended, only those that are new.

        Args:
            version: Unbroken's version.
            upstreams: the names of the upstreams.
            since: how many turns had ended at the last snapshot.
            shows: see :class:`Snapshot`; ``""`` to leave it out.
        """
        recent = tuple(islice(self.recent, max(0, self.totals.turns - since)))
        cuts = [cut for record in reversed(recent) for cut in record.cuts] if since else self.cuts
        return Snapshot(
            version=version,
            started=self._started,
            now=time.time(),
            upstreams=upstreams,
            running=len(self.live),
            live=tuple(turn.record() for turn in islice(self.live.values(), LIVE)),
            recent=recent,
            cuts=tuple(cuts),
            advice=advice(cuts),
            totals=self.totals,
            store_problem=self.store_problem,
            kept=dict(self.kept) or msgspec.UNSET,
            shows=shows or msgspec.UNSET,
        )

    def _count(self, record: RequestRecord) -> None:
        totals = self.totals
        totals.turns += record.is_turn
        totals.answered += record.outcome is Outcome.ANSWERED
        totals.saved += record.saved
        totals.cut += record.is_turn and record.outcome in (Outcome.CUT, Outcome.LOST)
        totals.passed += record.outcome is Outcome.PASSED


def merged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Merge the snapshots of several processes of one relay."""
    first = snapshots[0]
    cuts = sorted((cut for one in snapshots for cut in one.cuts), key=lambda cut: cut.at)[-CUTS:]
    recent = sorted((turn for one in snapshots for turn in one.recent), key=lambda turn: turn.started + turn.elapsed)
    live = sorted((turn for one in snapshots for turn in one.live), key=lambda turn: turn.started)
    counts = {name: sum(getattr(one.totals, name) for one in snapshots) for name in Totals.__struct_fields__}
    return Snapshot(
        version=first.version,
        started=min(one.started for one in snapshots),
        now=first.now,
        upstreams=first.upstreams,
        running=sum(one.running for one in snapshots),
        live=tuple(live[:LIVE]),
        recent=tuple(recent[: -RECENT - 1 : -1]),
        cuts=tuple(cuts),
        advice=advice(cuts),
        totals=Totals(**counts),
        store_problem=next(filter(None, (one.store_problem for one in snapshots)), ""),
        kept=_sum_of_kept(snapshots) or msgspec.UNSET,
    )


def _sum_of_kept(snapshots: Sequence[Snapshot]) -> dict[str, KeptCount]:
    found: dict[str, KeptCount] = {}
    for snapshot in snapshots:
        for event, count in (snapshot.kept or {}).items():
            found[event] = found.get(event, KeptCount()) + count
    return found


_HANDED_ON = {
    Failure.BUSY.code: Outcome.REFUSED,
    Failure.GATEWAY_GAVE_UP.code: Outcome.REFUSED,
    Failure.REFUSED.code: Outcome.REFUSED,
    Failure.OTHER_CONTENT.code: Outcome.UNEXPECTED,
    Failure.TRANSIENT_ERROR.code: Outcome.FAILED,
    Failure.PERMANENT_ERROR.code: Outcome.FAILED,
}
"""The outcomes for failures of the last attempt that were handed on to the client unaltered."""


def outcome_of(report: Report, error: TurnError | None) -> Outcome:
    """Return the outcome of a turn that its client has not left."""
    match error:
        case None:
            last = report.attempts[-1].failure if report.attempts else None
            return _HANDED_ON.get(last or "", Outcome.ANSWERED)
        case Unreachable():
            return Outcome.UNREACHABLE
        case FirstOutputTimeout():
            return Outcome.TIMED_OUT
        case MalformedStream():
            return Outcome.MALFORMED
        case StreamCut() if error.phase in (Phase.HEADERS, Phase.PRELUDE) or report.attempts[-1].held:
            return Outcome.LOST
    return Outcome.CUT


class OpenRequest:
    """A request while it is served, up to its one record.

    Args:
        request_id: its name in headers and logs.
        incoming: the client's request.

    Attributes:
        turn: the turn that it became, ``None`` where it is no generation call.
        passthrough: what passes it through, or hands over what is kept of another turn; ``None`` where nothing does.
        is_recorded: whether it is recorded although it was neither forwarded nor refused.
        shown_path: what is recorded in the place of its path, ``""`` for the path itself.
    """

    def __init__(self, request_id: str, incoming: ClientRequest) -> None:
        self.id = request_id
        self.turn: RelayedTurn | None = None
        self.passthrough: Passthrough | Collection | None = None
        self.is_recorded = True
        self.shown_path = ""
        self._incoming = incoming
        self._outcome: Outcome | None = None
        self._rejection: GatewayError | None = None
        self._sent = 0
        self._detail = ""
        self._started = time.time()
        self._began = time.monotonic()

    def ended_by(self, outcome: Outcome) -> None:
        """Record how it ended, unless the turn or the passthrough knows better."""
        self._outcome = outcome
        if self.turn and (self.turn.outcome is None or outcome is Outcome.DEFECT):
            self.turn.outcome = outcome

    def rejected(self, error: GatewayError, sent: int) -> None:
        """Record that the relay refused it."""
        self._outcome, self._rejection, self._detail = Outcome.REJECTED, error, error.message
        self._sent = sent
        self.is_recorded = True

    def cut(self) -> None:
        """Record that what it was answered with was cut."""
        self._outcome = Outcome.CUT

    def give_up(self, why: str) -> None:
        """Record that its client does not read the response."""
        self._outcome, self._detail = Outcome.LEFT, why
        if self.turn:
            self.turn.outcome, self.turn.detail = Outcome.LEFT, why

    def begin_anew(self, request_id: str) -> None:
        """Take that another turn answers it, as the one so far has ended without having answered."""
        self.id, self.turn = request_id, None

    def record(self) -> RequestRecord | None:
        """Return what is known of it at its end; ``None`` where it is not recorded."""
        if self.turn is not None:
            return self.turn.record()
        if not self.is_recorded:
            return None
        passed = self.passthrough
        return RequestRecord(
            id=self.id,
            started=self._started,
            elapsed=time.monotonic() - self._began,
            method=self._incoming.method,
            path=self.shown_path or self._incoming.path,
            upstream=passed.upstream if passed else None,
            status=self._rejection.status if self._rejection else passed.status if passed else None,
            outcome=self._outcome or (passed.outcome if passed else Outcome.DEFECT),
            bytes_in=self._incoming.received,
            bytes_out=self._sent or (passed.bytes if passed else 0),
            detail=self._detail or (passed.detail if passed else ""),
        )
