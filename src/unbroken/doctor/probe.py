"""One silent connection: it is made, kept in one way or in none, and watched until it ends or the test does."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from unbroken.core.failures import Failure
from unbroken.doctor.far_end import FarEnd
from unbroken.doctor.reaching import Reach
from unbroken.doctor.silences import POLITE, End, Keeping, SilentConnection
from unbroken.errors import WireError
from unbroken.lab.echo import TOKEN_HEADER
from unbroken.wire.clock import clock
from unbroken.wire.mapping import wire_error
from unbroken.wire.requests import request_head
from unbroken.wire.sockets import CHUNK, Steps, Waits, tune

if TYPE_CHECKING:
    from unbroken.wire.connection import Http

ANSWER = 5.0
"""Seconds for an answer, to a PING or to the request; without one the connection counts as forgotten."""

PATIENCE = 2.0
"""Seconds for which a connection that stands waits for the others."""

PAUSE = 0.02
"""Seconds between two looks at whether the other connections stand."""

PROBES = 9
"""Probes of TCP keepalive without an answer after which the connection ends: Linux's own number."""

GLANCE = 0.25
"""Seconds between two looks at whether the test is over."""


class Course(Protocol):
    """The course of a test, which its connections have in common."""

    def established(self, probe: Probe) -> bool:
        """Record that a probe's connection stands or does not; return whether that is known of every probe."""

    def begin(self, now: float) -> None:
        """Record that a silence begins."""

    def over(self, now: float) -> bool:
        """Return whether enough was seen."""


class Probe:
    """A silent connection.

    Args:
        far_end: where it leads.
        keeping: how it is kept.
        every: seconds between two PINGs, probes or comments.
        until: seconds of silence after which it is seen whether it lives; infinite for the end of the test.
        most: how many PINGs are sent at most; with the last one answered, it was kept.
        limit: seconds for the connection.

    Attributes:
        result: what was found; it is brought up to date while the test runs.
        reach: how the far end was reached.
    """

    def __init__(
        self,
        far_end: FarEnd,
        keeping: Keeping = Keeping.NOTHING,
        every: float = 0.0,
        *,
        until: float,
        most: int | None = None,
        limit: float = 10.0,
    ) -> None:
        self.result = SilentConnection(keeping, every)
        self.reach = Reach(far_end.destination, far_end.context, limit=limit)
        self._far_end = far_end
        self._until = until
        self._most = most
        self._pings = 0
        self._spoken = False
        self._due = self._heard_at = self._spoke_at = 0.0
        self._silent_since = 0.0

    def steps(self, course: Course) -> Steps[None]:
        """Make the connection and watch it, in steps."""
        try:
            yield from self.reach.steps()
            known = course.established(self)
            if self.reach.error:
                self._fail(self.reach.error)
                return
            until = clock() + PATIENCE
            while not known and clock() < until:  # what the others' TLS costs would be taken for silence
                yield Waits([], [], PAUSE)
                known = course.established(self)
            yield from self._ask()
            course.begin(self._silent_since)
            yield from self._watch(course)
        except WireError as error:
            self._fail(error)
        finally:
            self.reach.close()

    def _fail(self, error: WireError) -> None:
        self.result.end, self.result.detail = End.UNREACHED, str(error)

    # The request

    def _ask(self) -> Steps[None]:
        """Ask for silence, if the far end is ours, and wait for the head of the answer.

        Raises:
            WireError: it does not come, or is another's.
        """
        keeping, every = self.result.keeping, self.result.every
        if keeping is Keeping.TCP_KEEPALIVE:
            tune(self._sock, every, PROBES * every)
        now = self._heard_at = self._silent_since = self.reach.established_at
        self._due = now + every
        if keeping is Keeping.PING and self._http.version == "HTTP/1.1":
            raise WireError(Failure.REFUSED, "there is no PING without HTTP/2")
        if not self._far_end.is_ours:
            return
        comments = every if keeping is Keeping.COMMENTS else 0.0
        request = self._far_end.request(self._length, comments)
        self._http.send_request(request_head(request, self._far_end.destination))
        begun = clock()
        while not (self._http.head and self._spoken):
            left = begun + 2 * ANSWER - clock()
            if left <= 0:
                raise WireError(Failure.CONNECT_TIMEOUT, "the server of silence does not answer")
            if end := (yield from self._take(left)):
                raise WireError(Failure.CLOSED, f"the request for silence was not answered: {end}")
        head = self._http.head
        if head.status != 200 or head.fields.get(TOKEN_HEADER) != self._far_end.token:
            raise WireError(Failure.REFUSED, f"HTTP {head.status}, not from the server of silence")
        self._heard_at = self._silent_since = clock()
        self._due = self._silent_since + every

    @property
    def _length(self) -> float:
        """The seconds of silence to ask for: over HTTP/1.1 its end shows that the connection lives."""
        speaks = self._http.version == "HTTP/1.1" and self.result.keeping is Keeping.NOTHING
        return self._until if speaks else 3600.0

    @property
    def _sock(self) -> socket.socket:
        assert self.reach.sock is not None
        return self.reach.sock

    @property
    def _http(self) -> Http:
        assert self.reach.connection is not None
        assert self.reach.connection.http is not None
        return self.reach.connection.http

    # The silence

    def _watch(self, course: Course) -> Steps[None]:
        """Wait for the end of the connection, or of the test."""
        while True:
            now = clock()
            self.result.seconds = round(now - self._silent_since, 2)
            if self._is_enough(now, course):
                yield from self._see_if_alive()
                return
            if self._is_forgotten(now):
                self.result.end = End.SILENCE
                self.result.seconds = round(max(self._heard_at, self._spoke_at) - self._silent_since, 2)
                return
            self._ping(now)
            if end := (yield from self._take(min(GLANCE, self._next(now)))):
                self.result.end = End.KEPT if self._ends_in_time else end
                self.result.seconds = round(clock() - self._silent_since, 2)
                return

    def _is_enough(self, now: float, course: Course) -> bool:
        spent = self._most is not None and self._pings >= self._most and self._pongs >= self._pings
        return spent or now - self._silent_since >= self._until or course.over(now)

    def _is_forgotten(self, now: float) -> bool:
        """Return whether what keeps the connection has had no answer for too long."""
        if self.result.keeping is Keeping.COMMENTS:
            return now - self._heard_at > self.result.every + ANSWER
        return self._spoke_at > 0 and self._pongs < self._pings and now - self._spoke_at > ANSWER

    @property
    def _pongs(self) -> int:
        http = self._http
        return http.pongs if http.version == "HTTP/2" else 0

    def _ping(self, now: float) -> None:
        """Send a PING, if one is due."""
        if self.result.keeping is Keeping.PING and now >= self._due and self._pongs == self._pings:
            self._speak(now)
            self._due = now + self.result.every

    def _speak(self, now: float) -> None:
        if (http := self._http).version == "HTTP/2":
            http.ping()
            self._pings += 1
            self._spoke_at = now

    def _next(self, now: float) -> float:
        """Return the seconds until something is to be done."""
        dues = [self._silent_since + self._until]
        if self.result.keeping is Keeping.PING and self._due > now:
            dues.append(self._due)
        return max(0.01, min(dues) - now)

    def _see_if_alive(self) -> Steps[None]:
        """Find out whether the connection still carries anything, now that it was silent for long enough."""
        now = clock()
        self.result.seconds = round(now - self._silent_since, 2)
        if self._http.version == "HTTP/2":
            spent = self._most is not None and self._pings >= self._most
            if self._pings == self._pongs and not spent:
                self._speak(now)
            yield from self._wait_for_life(now)
        elif self.result.keeping is Keeping.NOTHING and self.result.seconds >= self._until:
            yield from self._wait_for_life(now)  # its server speaks now
        else:
            self.result.end = End.KEPT

    def _wait_for_life(self, now: float) -> Steps[None]:
        """Wait for an answer to PING, or over HTTP/1.1 for the server's last word."""
        while not self._lives:
            left = now + ANSWER - clock()
            end = (yield from self._take(left)) if left > 0 else End.SILENCE
            if end and not self._lives:
                self.result.end = end if end in POLITE else End.SILENCE
                return
        self.result.end = End.KEPT

    @property
    def _lives(self) -> bool:
        """Whether what was to come has come."""
        return self._pongs == self._pings if self._http.version == "HTTP/2" else self._ends_in_time

    @property
    def _ends_in_time(self) -> bool:
        """Whether the answer has ended, and not before the time at which its server ends it."""
        due = self._silent_since + self._length - 1.0
        return self._far_end.is_ours and self._http.ended and clock() >= due

    def _take(self, seconds: float) -> Steps[End | None]:
        """Take what comes within so many seconds; return the end of the connection, if it came."""
        connection = self.reach.connection
        assert connection is not None
        try:
            self.reach.send()
            yield Waits([self._sock], [], seconds)
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return None
        except OSError as exc:
            failure = wire_error(exc, sent=True, proxied=False).failure
            return End.SILENCE if failure is Failure.DEAD_PATH else End.RST
        self._heard_at = clock()
        if not data:
            return self._said_goodbye or End.FIN
        try:
            connection.receive(data)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends the connection
            return self._said_goodbye or self._meaning(exc)
        self._spoken = bool(self._http.take()) or self._spoken
        early = self._far_end.is_ours and self._http.ended and not self._ends_in_time
        return self._said_goodbye or (End.ANSWER_ENDED if early else None)

    @property
    def _said_goodbye(self) -> End | None:
        http = self._http
        return End.GOAWAY if http.version == "HTTP/2" and http.goaway else None

    def _meaning(self, exc: Exception) -> End:
        error = wire_error(exc, sent=True, proxied=False)
        self.result.detail = str(error)
        if error.failure is Failure.CLOSED:
            return End.CLOSE_NOTIFY
        return End.RST if error.failure is Failure.RESET else End.ANSWER_ENDED
