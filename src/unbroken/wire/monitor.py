"""The clock of one exchange, without I/O: what has moved when, which deadline has passed, when PING is due."""

from __future__ import annotations

import math

import msgspec

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.route import RouteRecord
from unbroken.core.suspicion import PathEvent, Recovered, Suspected
from unbroken.errors import WireError
from unbroken.wire.keepalive import KeepaliveMonitor
from unbroken.wire.tcp import TcpState

IDLE_FRAMES_AT_ONCE, IDLE_FRAMES_PER_SECOND = 1000, 100
"""How many HTTP/2 frames without anything of a response may come, at once and in the long run."""

MAX_BEFORE_HEADERS = 1024 * 1024
"""Bytes that may come before a response's headers: informational responses (1xx) may be repeated without end."""

ANSWER = 5.0
"""Seconds for the answer to a PING after waking, and to what TCP sends again once a second connection has stood."""

LOOK_AT_TCP, LOOK_AT_QUIET_TCP = 1.0, 5.0
"""Seconds between two looks at TCP's state, at most: while something is unacknowledged, and while nothing is. A look
costs a waking, which thousands of silent streams feel."""

LONGEST_WAIT = 3600.0
"""Seconds; limits may be infinite, but no system call accepts that as a timeout."""


class Monitor:
    """The clock of one exchange; its :class:`unbroken.wire.contract.Path`.

    Args:
        limits: the limits to begin with; :attr:`limits` may be replaced at any time.
        now: the current time, on the same clock as every other ``now``.

    Attributes:
        limits: the limits that apply.
        sent: whether any byte of the request may have left.
        received: bytes received during the exchange, as HTTP sees them.
        keepalive: the PINGs; ``None`` before the request and in HTTP/1.1, which has none.
        route: what was known of the path before anything was sent.
        awaits_caller: whether the next bytes are the caller's, who still produces the request: no silence counts.
        provable: whether a second connection can prove that the network is there.
        event: what is to be reported of the path; whoever reports it clears it.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.sent = False
        self.received = 0
        self.keepalive: KeepaliveMonitor | None = None
        self.route = RouteRecord()
        self.awaits_caller = False
        self.provable = True
        self.event: PathEvent | None = None
        self._started = now
        self._heard_at = now
        self._progress_at = now
        self._listening_since = now
        self._responded_at = now
        self._waited = 0.0
        self._woke_at: float | None = None
        self._away: float | None = None
        self._tcp_looked_at = now
        self._tcp_interval = LOOK_AT_TCP
        self._unacknowledged_since: float | None = None
        self._retransmissions = 0
        self._stood_at: float | None = None
        self._retransmitted_at: float | None = None
        self._suspected_at: float | None = None

    @property
    def round_trip(self) -> float | None:
        """Seconds that the last answered PING took, ``None`` before the first."""
        return self.keepalive.round_trip if self.keepalive else None

    def unanswered(self, now: float) -> float | None:
        """Return the seconds for which a PING, or TCP, has been unanswered, ``None`` if none is."""
        since = self._unanswered_since
        return None if since is None else now - since

    def silent(self, now: float) -> float:
        """Return the seconds since the last byte of the response, or of the request before it.

        Neither PING nor what ends a response without a byte of it breaks the silence: idle timers count what flows.
        """
        return max(0.0, now - self._responded_at)

    @property
    def record(self) -> RouteRecord:
        """What is known of the path and of PING on it."""
        pings = self.keepalive
        if not self.sent:
            return self.route
        if pings is None:
            return msgspec.structs.replace(self.route, http_version="HTTP/1.1", waited=self._waited)
        return msgspec.structs.replace(
            self.route,
            http_version="HTTP/2",
            ping=pings.spacing(self.limits.ping) or 0.0,
            ping_learned=pings.learned is not None,
            ping_refused=pings.step > 0,
            pings_sent=pings.sent_count,
            pings_answered=pings.answered_count,
            kept_busy=pings.answered_at is not None and pings.answered_at > self._responded_at,
            waited=self._waited,
        )

    # Events

    def begin_request(self, now: float, keepalive: KeepaliveMonitor | None) -> None:
        """Record that the request is about to be sent, and with which PINGs."""
        self.sent = True
        self.keepalive = keepalive
        self._heard_at = self._responded_at = self._progress_at = self._tcp_looked_at = now

    def listens(self, now: float) -> None:
        """Record that the caller begins to wait. What it did before does not count as silence."""
        self._listening_since = self._tcp_looked_at = now

    def wrote(self, now: float, *, of_request: bool) -> None:
        """Record that the network accepted bytes; those of PING and its like are no progress."""
        if of_request:
            self._heard_at = self._responded_at = self._progress_at = now

    def pinged(self, now: float) -> None:
        """Record that a PING was sent."""
        assert self.keepalive is not None
        self.keepalive.sent(now)

    def heard(self, now: float, *, of_response: bool) -> None:
        """Record that bytes have come; HTTP/2 frames outside of the response are no progress."""
        self._heard_at = now
        self._woke_at = None
        if of_response:
            self._progress_at = now
        if self._suspected_at is not None:
            self._recover()

    def runs(self, now: float, away: float) -> None:
        """Record that the process runs.

        Args:
            now: the current time.
            away: seconds in which it did not run, so far. After a step of a second or more, PING is due at once.
        """
        if self._away is not None and away - self._away >= 1.0 and self.sent:
            self._woke_at = now
        self._away = away

    def take_tcp(self, now: float, state: TcpState | None) -> None:
        """Take what TCP knows of the path, ``None`` where the system does not tell it."""
        before, self._tcp_looked_at = self._tcp_looked_at, now
        if state is None:
            self._tcp_interval = math.inf
            return
        self._tcp_interval = LOOK_AT_TCP if state.outstanding or self._stood_at is not None else LOOK_AT_QUIET_TCP
        if not state.outstanding:
            self._unacknowledged_since = None
        elif self._unacknowledged_since is None:
            self._unacknowledged_since = max(before, now - LOOK_AT_TCP, now - state.acknowledged)
        else:
            self._unacknowledged_since = max(self._unacknowledged_since, now - state.acknowledged)
        if self._stood_at is None:
            self._retransmissions = state.retransmissions
        elif not state.outstanding:
            self._retransmitted_at = None
        elif self._retransmitted_at is None and state.retransmissions > self._retransmissions:
            self._retransmitted_at = now
        if not self._pings and self._suspected_at is not None and not self._is_unanswered(self._suspected_at):
            self._recover()

    def stood(self, now: float) -> None:
        """Record that a second connection stands: what TCP sends again from now on could be answered."""
        self._stood_at, self._tcp_interval = now, LOOK_AT_TCP

    def suspect(self, now: float) -> None:
        """Suspect the path if it has not answered in time."""
        if self._suspected_at is None and (due := self._suspicion_due()) is not None and now >= due:
            self._suspected_at = now
            self.event = Suspected(self.unanswered(now) or 0.0, self.provable)

    def _recover(self) -> None:
        self._suspected_at = self._stood_at = self._retransmitted_at = None
        self.event = Recovered()

    def responded(self, now: float, *, awaits_head: bool) -> None:
        """Record that bytes of the response have come, of its head if that was awaited or of its body."""
        if awaits_head:
            self._waited = max(self._waited, now - self._responded_at)
        self._responded_at = now

    def limit_floods(self, now: float, received: int, idle_frames: int, *, answered: bool) -> None:
        """Refuse what a server may send without end: each frame costs a look, and an answer at worst.

        Args:
            now: the current time.
            received: bytes received during the exchange, as HTTP sees them.
            idle_frames: how many frames of HTTP/2 carried nothing of a response.
            answered: whether the headers of the response have come.

        Raises:
            WireError: ``BROKEN_FRAMING``.
        """
        self.received = received
        if not answered and received > MAX_BEFORE_HEADERS:
            raise WireError(Failure.BROKEN_FRAMING, f"{received} bytes came, and no headers of a response")
        if idle_frames > IDLE_FRAMES_AT_ONCE + (now - self._started) * IDLE_FRAMES_PER_SECOND:
            raise WireError(Failure.BROKEN_FRAMING, "the server floods the connection with empty and control frames")

    # Decisions

    def check(self, now: float, *, sending: bool = False) -> None:
        """Raise the failure of a deadline that has passed.

        Args:
            now: the current time.
            sending: whether a part of the request has not been accepted by the network yet.

        Raises:
            WireError: ``CALLER_TIMEOUT``, ``CONNECT_TIMEOUT``, ``DEADLINE``, ``IDLE_TIMEOUT``, ``STALLED`` or
                ``DEAD_PATH``.
        """
        limits = self.limits
        which, due = self._caller_due(sending)
        if due is not None and now >= due:
            raise WireError(Failure.CALLER_TIMEOUT, which)
        if not self.sent and now - self._started >= limits.connect:
            limit = "the limit of Policy.connect_timeout and --connect"
            raise WireError(Failure.CONNECT_TIMEOUT, f"none in {limits.connect:g} s, {limit}")
        if limits.until is not None and now >= limits.until:
            raise WireError(Failure.DEADLINE)
        if (dead := self._dead_due()) is not None and now >= dead:
            raise WireError(Failure.DEAD_PATH, f"{self.unanswered(now) or 0:.0f} s, and a second connection stands")
        if self.sent and now >= self._idle_due():
            raise WireError(Failure.IDLE_TIMEOUT, f"nothing for {limits.idle:g} s")
        if (stalled := self._stall_due()) is not None and now >= stalled:
            raise WireError(Failure.STALLED, f"nothing for {limits.stall:g} s")

    def ping_is_due(self, now: float) -> bool:
        """Return whether a PING is to be sent now."""
        due = self._ping_due()
        return due is not None and now >= due

    def wait(self, now: float, *, sending: bool = False) -> float:
        """Return the seconds until :meth:`check` or :meth:`ping_is_due` must be asked again; at least 1 ms.

        Whatever moves meanwhile puts that off, except other :attr:`limits`, another ``sending`` and the end of
        :attr:`awaits_caller`.
        """
        limits = self.limits
        first = self._idle_due() if self.sent else self._started + limits.connect
        dues = (limits.until, self._stall_due(), self._suspicion_due(), self._dead_due(), self._tcp_due())
        for due in (*dues, self._caller_due(sending)[1]):
            if due is not None and due < first:
                first = due
        until_ping = self.until_ping(now)
        return min(max(first - now, 0.001), LONGEST_WAIT if until_ping is None else until_ping)

    def until_ping(self, now: float) -> float | None:
        """Return the seconds until :meth:`ping_is_due` must be asked again, ``None`` for never."""
        if self.keepalive is None:
            return None
        spacing = self.keepalive.spacing(self.limits.ping)
        due = self._ping_due()
        return spacing if due is None else max(due - now, 0.001)  # an answer may come at once

    def _idle_due(self) -> float:
        return math.inf if self.awaits_caller else self._quiet_since + self.limits.idle

    def _stall_due(self) -> float | None:
        stall = self.limits.stall
        return None if stall is None else max(self._progress_at, self._listening_since) + stall

    @property
    def _quiet_since(self) -> float:
        return max(self._heard_at, self._listening_since)

    def _caller_due(self, sending: bool) -> tuple[str, float | None]:
        """Return which of the caller's timeouts is running, and when it expires."""
        caller = self.limits.caller
        if not self.sent:
            return "connect", None if caller.connect is None else self._started + caller.connect
        which, limit = ("write", caller.write) if sending else ("read", caller.read)
        if limit is None or self.awaits_caller:
            return which, None
        return which, max(self._progress_at, self._listening_since) + limit

    def tcp_is_due(self, now: float) -> bool:
        """Return whether :meth:`take_tcp` is to be called."""
        due = self._tcp_due()
        return due is not None and now >= due

    @property
    def _pings(self) -> bool:
        """Whether PING tells if the path answers; otherwise it is TCP."""
        return self.keepalive is not None and self.keepalive.spacing(self.limits.ping) is not None

    def _ping_due(self) -> float | None:
        if self.keepalive is None:
            return None
        due = self.keepalive.due(self.limits.ping, self._heard_at)
        return due if due is None or self._woke_at is None else min(due, self._woke_at)

    @property
    def _unanswered_since(self) -> float | None:
        """Since when the path has not answered, as far as the caller listened."""
        if self.keepalive is not None and self.keepalive.in_flight:
            return self.keepalive.sent_at
        return None if self._pings else self._unacknowledged_since

    def _is_unanswered(self, moment: float) -> bool:
        """Return whether the path has not answered since that moment, by what TCP knows."""
        since = self._unacknowledged_since
        return since is not None and since <= moment

    def _suspicion_due(self) -> float | None:
        """Return when the path is to be suspected, ``None`` for never."""
        since, patience = self._unanswered_since, self.limits.ping_timeout
        if since is None or self.awaits_caller or not self.sent or self._suspected_at is not None:
            return None
        if self._pings:
            since = max(since, self._quiet_since)
        if self._woke_at is not None:
            since, patience = max(since, self._woke_at), min(patience, ANSWER)
        return since + patience

    def _dead_due(self) -> float | None:
        """Return when a suspected path is given up, ``None`` for never."""
        revive = self.limits.revive
        if revive is None or self._suspected_at is None:
            return None
        return revive if self._retransmitted_at is None else min(revive, self._retransmitted_at + ANSWER)

    def _tcp_due(self) -> float | None:
        if not self.sent or (self._pings and self._stood_at is None):
            return None
        patience, interval = self.limits.ping_timeout, self._tcp_interval
        return None if math.isinf(patience + interval) else self._tcp_looked_at + min(interval, patience / 4)
