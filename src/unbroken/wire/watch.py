"""State and decisions of the network stream, without I/O: deadlines, PING, counts, GOAWAY.

A stream asks :meth:`Watch.check` whether a limit has passed, :meth:`Watch.ping` whether to write a PING, and
:meth:`Watch.wait` how long it may sleep; it reports traffic with :meth:`Watch.heard` and :meth:`Watch.wrote`.
"""

from __future__ import annotations

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import PING_FRAME, Inbound

IDLE_FRAMES_AT_ONCE, IDLE_FRAMES_PER_SECOND = 1000, 100
"""How many HTTP/2 frames without anything of a response may come, at once and in the long run."""

MAX_BEFORE_HEADERS = 1024 * 1024
"""Bytes that may come before a response's headers: informational responses (1xx) may be repeated without end."""

LONGEST_WAIT = 3600.0
"""Seconds; limits may be infinite, but no system call accepts that as a timeout."""


class Watch:
    """The watch over one exchange.

    Args:
        limits: the limits to begin with; :attr:`limits` may be replaced at any time.
        now: the current time, on the same clock as every other ``now``.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.sent = False
        self.round_trip: float | None = None
        self.received = 0
        self.answered = False
        self._idle_before = 0
        self._started = now
        self._heard_at = now
        self._progress_at = now
        self._listening_since = now
        self._moved_at = now
        self._pinged_at = now
        self._awaiting_pong = False
        self._stream_id: int | None = None
        self._frames: Inbound | None = None

    # Events

    def speak_http2(self, frames: Inbound) -> None:
        """Send PING from now on: HTTP/2 was negotiated."""
        self._frames = frames
        self._idle_before = frames.idle

    def begin_request(self, now: float, stream_id: int | None) -> None:
        """Record that the request's headers are about to be written."""
        self.sent = True
        self._heard_at = self._moved_at = self._progress_at = now
        self._stream_id = stream_id

    def listens(self, now: float) -> None:
        """Record that a read begins. Until then nothing could be received, so it does not count as silence."""
        self._listening_since = now

    def wrote(self, now: float) -> None:
        """Record that the network accepted bytes of the request."""
        self._heard_at = self._moved_at = self._progress_at = now

    def heard(self, data: bytes, now: float) -> bytes:
        """Record bytes that have come; return those for HTTP.

        Raises:
            WireError: a GOAWAY that does not cover the exchange's stream.
        """
        self.received += len(data)
        if not self.answered and self.received > MAX_BEFORE_HEADERS:
            raise WireError(Failure.BROKEN_FRAMING, f"{self.received} bytes came, and no headers of a response")
        self._heard_at = self._moved_at = now
        if self._frames is None:
            self._progress_at = now
            return data
        pongs = self._frames.pongs
        data = self._frames.feed(data)
        self._limit_idle_frames(self._frames.idle - self._idle_before, now)
        if self._awaiting_pong and self._frames.pongs > pongs:
            self._awaiting_pong = False
            self.round_trip = now - self._pinged_at
        self._obey_goaway(self._frames)
        if data:
            self._progress_at = now
        return data

    def _limit_idle_frames(self, count: int, now: float) -> None:
        """Refuse a flood of frames that carry nothing: each costs a look, and an answer at worst."""
        allowed = IDLE_FRAMES_AT_ONCE + (now - self._started) * IDLE_FRAMES_PER_SECOND
        if count > allowed:
            raise WireError(Failure.BROKEN_FRAMING, "the server floods the connection with empty and control frames")

    def _obey_goaway(self, frames: Inbound) -> None:
        goaway = frames.goaway
        if goaway and (self._stream_id is None or goaway.last_stream < self._stream_id):
            raise WireError(Failure.NOT_PROCESSED, f"GOAWAY {goaway.error}")

    # Decisions

    def check(self, now: float, *, reading: bool = True) -> None:
        """Raise the failure of a limit that has passed.

        Raises:
            WireError: ``CALLER_TIMEOUT``, ``CONNECT_TIMEOUT``, ``DEADLINE``, ``IDLE_TIMEOUT`` or ``DEAD_PATH``.
        """
        limits = self.limits
        which, due = self._caller_due(reading)
        if due is not None and now >= due:
            raise WireError(Failure.CALLER_TIMEOUT, which)
        if not self.sent and now - self._started >= limits.connect:
            raise WireError(Failure.CONNECT_TIMEOUT, f"{limits.connect:g} s")
        if limits.until is not None and now >= limits.until:
            raise WireError(Failure.DEADLINE)
        if self._awaiting_pong and now - max(self._pinged_at, self._quiet_since) >= limits.ping_timeout:
            raise WireError(Failure.DEAD_PATH, f"{limits.ping_timeout:g} s")
        if self.sent and now - self._quiet_since >= limits.idle:
            raise WireError(Failure.IDLE_TIMEOUT, f"nothing for {limits.idle:g} s")

    def ping(self, now: float) -> bytes:
        """Return a PING frame to write now, or ``b""``."""
        due = self._ping_due()
        if due is None or now < due:
            return b""
        self._awaiting_pong = True
        self._pinged_at = self._moved_at = now
        return PING_FRAME

    def wait(self, now: float, *, reading: bool = True) -> float:
        """Return the seconds until :meth:`check` (or, if ``reading``, :meth:`ping`) must be called; at least 1 ms."""
        limits = self.limits
        due = [self._quiet_since + limits.idle if self.sent else self._started + limits.connect]
        if limits.until is not None:
            due.append(limits.until)
        if self._awaiting_pong:
            due.append(max(self._pinged_at, self._quiet_since) + limits.ping_timeout)
        elif reading and (ping := self._ping_due()) is not None:
            due.append(ping)
        if (callers := self._caller_due(reading)[1]) is not None:
            due.append(callers)
        return min(max(min(due) - now, 0.001), LONGEST_WAIT)

    def silent(self, now: float) -> float:
        """Return the seconds since the last byte on the wire, either way."""
        return max(0.0, now - self._moved_at)

    @property
    def _quiet_since(self) -> float:
        return max(self._heard_at, self._listening_since)

    def _caller_due(self, reading: bool) -> tuple[str, float | None]:
        """Return which of the caller's timeouts is running, and when it expires."""
        caller = self.limits.caller
        if not self.sent:
            return "connect", None if caller.connect is None else self._started + caller.connect
        which, limit = ("read", caller.read) if reading else ("write", caller.write)
        return which, None if limit is None else max(self._progress_at, self._listening_since) + limit

    def _ping_due(self) -> float | None:
        if self._frames is None or not self.sent or not self.limits.ping or self._awaiting_pong:
            return None
        return max(self._heard_at, self._pinged_at) + self.limits.ping
