"""The idle test: several silent connections at once, by the path of a turn, each kept in another way or in none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from unbroken.core.route import MIN_INTERVAL, is_private
from unbroken.doctor import far_end as ends
from unbroken.doctor.certificate import signer_of
from unbroken.doctor.examination import Examination
from unbroken.doctor.far_end import FarEnd
from unbroken.doctor.probe import Probe
from unbroken.doctor.reaching import Reach, do
from unbroken.doctor.silences import End, FarEndKind, IdleReport, Keeping, SilenceTrial, SilentConnection
from unbroken.wire.clock import clock
from unbroken.wire.requests import Destination
from unbroken.wire.sockets import Steps, Waits
from unbroken.wire.tls import client_context

CHECKS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds of silence after which it is seen whether a connection lives: a path may forget it without a word."""

CHECKS_OF_PROVIDER = (10.0, 30.0)

PROVIDER_PING, PROVIDER_PINGS = 10.0, 6
"""Seconds between two PINGs on a connection to a provider, at least, and how many there are at most."""

TICK = 0.5
"""Seconds between two reports of the progress."""

Progress = Callable[[float, int, int], None]
"""Takes the seconds so far, how many connections are still watched, and how many there are."""


class IdleTest:
    """An idle test of a path that was examined.

    Args:
        examination: the path; its provider was reached.
        echo: the URL of an ``unbroken lab echo``, ``None`` for none.
        longest: seconds of silence that are tried at most.
        progress: is told how far the test is.

    Attributes:
        report: what was found, which is also the path's; it is brought up to date while the test runs.
    """

    def __init__(
        self, examination: Examination, echo: str | None, longest: float, progress: Progress = lambda *_: None
    ) -> None:
        self.report = examination.path.idle = IdleReport()
        self._examination = examination
        self._echo = echo
        self._longest = longest
        self._progress = progress
        self._probes: list[Probe] = []

    def run(self) -> None:
        """Run the test. It may be interrupted at any time: what is known by then is in :attr:`report`."""
        with contextlib.ExitStack() as stack:
            works = [work for end in self._far_ends(stack) for work in self._trial(end)]
            do(*works, self._ticking())
        self.report.trials = [trial for trial in self.report.trials if self._is_reached(trial)]

    # Where silent connections lead

    def _far_ends(self, stack: contextlib.ExitStack) -> Iterator[FarEnd]:
        examination, destination = self._examination, self._examination.destination
        assert destination is not None
        served = self._here(stack)
        if served:
            yield served
        far = self._far_echo(destination)
        if far:
            yield far
        elif examination.path.http_version == "HTTP/2":
            yield ends.provider(destination, examination.target.context)
            if destination.proxy and not served:
                yield ends.direct(destination, examination.target.context)
        elif not served:
            self._skip(_why_not(examination))

    def _far_echo(self, destination: Destination) -> FarEnd | None:
        """Return the lab of the user's, if one was given and is reached."""
        if not self._echo:
            return None
        far = ends.echo(self._echo, destination.proxy)
        return far if self._reaches(far, f"the echo at {far.destination.authority}") else None

    def _here(self, stack: contextlib.ExitStack) -> FarEnd | None:
        """Serve silence on this machine, behind the proxy; return it if the proxy reaches it."""
        destination = self._examination.destination
        assert destination is not None
        if (proxy := destination.proxy) is None:
            return None
        try:
            served = stack.enter_context(
                ends.here(proxy, self._examination.local, secure=destination.scheme == "https")
            )
        except OSError as exc:
            self._skip(f"a server on this machine cannot listen at {self._examination.local}: {exc.strerror}")
            return None
        if self._reaches(served, "a server on this machine, through the proxy,"):
            return served
        if served.destination.scheme == "https":
            self._find_interception(served)
        elif self._first(served, Keeping.NOTHING).end is End.KEPT:
            self.report.answers_held_by = proxy.url
        return None

    def _reaches(self, end: FarEnd, name: str) -> bool:
        """Return whether a far end of ours is reached, and its answers come as it writes them; if not, say why."""
        first = self._first(end, Keeping.COMMENTS)
        if first.end is not End.KEPT:
            self._skip(f"{name} is not reached, so the next far end is taken: {first.detail or first.end.value}")
        return first.end is End.KEPT

    def _first(self, end: FarEnd, keeping: Keeping) -> SilentConnection:
        """Ask for an answer that goes on, with comments, or for one that ends at once; return what became of it."""
        probe = Probe(end, keeping, MIN_INTERVAL, until=0.0, limit=self._examination.target.connect)
        do(probe.steps(_Course(SilenceTrial(kind=end.kind, host=""), 0.0)))
        return probe.result

    def _find_interception(self, served: FarEnd) -> None:
        """Compare who signs for a server of ours, as it is seen through the proxy, with who signs for the provider."""
        reach = Reach(served.destination, lambda: client_context(False), limit=self._examination.target.connect)
        do(reach.steps())
        reach.close()
        known = self._examination.path.certificate
        if reach.certificate and known and str(signer_of(reach.certificate)) == known.signer:
            self.report.intercepted_by = known.signer

    def _skip(self, why: str) -> None:
        self.report.skipped.append(why)

    # The connections

    def _trial(self, end: FarEnd) -> Sequence[Steps[None]]:
        """Return the work of all connections to one far end."""
        proxy = end.destination.proxy
        trial = SilenceTrial(kind=end.kind, host=end.destination.authority, proxy=proxy.url if proxy else "")
        course = _Course(trial, self._longest)
        probes = [self._probe(end, *settings) for settings in self._settings(end)]
        trial.connections = [probe.result for probe in probes]
        self.report.trials.append(trial)
        self._probes += probes
        return [_versioned(probe, trial, course) for probe in probes]

    def _probe(self, end: FarEnd, keeping: Keeping, every: float, until: float) -> Probe:
        most = PROVIDER_PINGS if keeping is Keeping.PING and not end.is_ours else None
        return Probe(end, keeping, every, until=until, most=most, limit=self._examination.target.connect)

    def _settings(self, end: FarEnd) -> Iterator[tuple[Keeping, float, float]]:
        """Yield how each connection is kept, how often, and after how many seconds it is seen whether it lives."""
        longest = self._longest
        checks = CHECKS if end.is_ours else CHECKS_OF_PROVIDER if end.kind is FarEndKind.PROVIDER else ()
        for until in (*(check for check in checks if check < longest), longest, longest):
            yield Keeping.NOTHING, 0.0, until
        if end.kind is FarEndKind.DIRECT:
            return
        yield Keeping.TCP_KEEPALIVE, MIN_INTERVAL, longest
        if end.destination.scheme == "https" and self._examination.path.http_version == "HTTP/2":
            for every in self._intervals(end):
                yield Keeping.PING, every, longest
        if end.is_ours:
            yield Keeping.COMMENTS, MIN_INTERVAL, longest

    def _intervals(self, end: FarEnd) -> Sequence[float]:
        """Return the intervals of PING to try: the configured one, and where the far end is ours the shortest one."""
        configured = self._examination.target.ping or PROVIDER_PING
        if not end.is_ours:
            return [max(PROVIDER_PING, configured)]
        return sorted({max(MIN_INTERVAL, configured), MIN_INTERVAL}, reverse=True)

    def _is_reached(self, trial: SilenceTrial) -> bool:
        """Return whether a far end was reached; if not, say why."""
        if trial.reached:
            return True
        why = next((one.detail for one in trial.connections if one.detail), "")
        if trial.kind is FarEndKind.HERE:
            self._skip(f"a server on this machine is not reached through the proxy any more: {why}")
        elif trial.kind is FarEndKind.ECHO:
            self._skip(f"the echo at {trial.host} is not reached: {why}")
        elif trial.kind is FarEndKind.PROVIDER:
            self._skip(f"no silent connection to {trial.host} came about: {why}")
        return False

    def _ticking(self) -> Steps[None]:
        """Tell the progress until every connection has ended."""
        began = clock()
        while left := sum(probe.result.end is End.OPEN for probe in self._probes):
            self._progress(clock() - began, left, len(self._probes))
            yield Waits([], [], TICK)


class _Course:
    """The course of one trial: when enough was seen."""

    def __init__(self, trial: SilenceTrial, longest: float) -> None:
        self._trial = trial
        self._longest = longest
        self._began: float | None = None
        self._known: set[Probe] = set()

    def established(self, probe: Probe) -> bool:
        """Record that a probe's connection stands or does not; return whether that is known of every probe."""
        self._known.add(probe)
        return len(self._known) >= len(self._trial.connections)

    def begin(self, now: float) -> None:
        """Record that a silence begins."""
        self._began = self._began or now

    def over(self, now: float) -> bool:
        """Return whether enough was seen: what is kept has stood twice as long as what was cut."""
        silent, limit = self._trial.silent, self._trial.limit
        if self._began is None or any(one.end is End.OPEN for one in silent):
            return False
        return limit is None or now - self._began >= max(2 * limit, limit + 2.0)


def _versioned(probe: Probe, trial: SilenceTrial, course: _Course) -> Steps[None]:
    """Do the work of a probe, and record which HTTP version was spoken."""
    yield from probe.steps(course)
    trial.http_version = trial.http_version or probe.reach.http_version


def _why_not(examination: Examination) -> str:
    """Return why there is no far end at all."""
    path = examination.path
    if is_private(path.host):
        return f"nothing is known to stand between this machine and {path.host}, which is on it or on its network"
    return (
        f"{path.host} does not speak HTTP/2, so that nothing can be learned there without a request: run `unbroken lab"
        " echo` on another machine and give its URL (--echo)"
    )
