"""Prometheus metrics. No label can take more values than there are upstreams, dialects, outcomes, failures and phases.

Every relay has a registry of its own. Where several processes serve together, prometheus-client keeps the figures in
files that all of them read (``PROMETHEUS_MULTIPROC_DIR``), and any of them answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from unbroken.core.report import Report
from unbroken.relay.records import TurnRecord, cuts_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each series: noise

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900)
"""Buckets in seconds, dense around the idle timers that are met in the field."""


class Metrics:
    """The metrics of one relay."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._turns = Counter(
            "unbroken_turns", "Turns that have ended.", ["upstream", "dialect", "outcome"], registry=registry
        )
        self._saved = Counter(
            "unbroken_turns_saved", "Turns answered although an attempt was lost.", ["upstream"], registry=registry
        )
        self._attempts = Counter(
            "unbroken_attempts",
            "Attempts by what ended them and how far they had come; failure is none for the one that answered.",
            ["upstream", "failure", "phase"],
            registry=registry,
        )
        self._again = Counter(
            "unbroken_attempts_again", "Attempts made again, as a retry or as a replay.", ["kind"], registry=registry
        )
        self._first_output = Histogram(
            "unbroken_first_output_seconds",
            "From the request to the first output.",
            ["upstream"],
            buckets=_WAITS,
            registry=registry,
        )
        self._silence = Histogram(
            "unbroken_silence_at_cut_seconds",
            "Silence on the wire, of a second or more, when an attempt was cut before output.",
            ["upstream"],
            buckets=_WAITS,
            registry=registry,
        )
        self._bytes = Counter("unbroken_sent_bytes", "Bytes of bodies sent to clients.", ["kind"], registry=registry)
        self._heartbeats = Counter("unbroken_heartbeats", "Heartbeats sent to clients.", registry=registry)
        self._requests = Counter(
            "unbroken_requests", "Requests that were no turns, passed or rejected.", ["outcome"], registry=registry
        )
        self._running = Gauge(
            "unbroken_turns_running", "Turns that run now.", registry=registry, multiprocess_mode="livesum"
        )
        for counter, kinds in ((self._again, ("retry", "replay")), (self._bytes, ("turn", "other"))):
            for kind in kinds:
                counter.labels(kind)  # there from the start, so that the first one is seen as a change

    def begun(self) -> None:
        """A turn has begun."""
        self._running.inc()

    def ended(self, turn: TurnRecord, report: Report) -> None:
        """A turn has ended."""
        self._running.dec()
        self._turns.labels(turn.upstream, turn.dialect, turn.outcome or "").inc()
        if turn.saved:
            self._saved.labels(turn.upstream).inc()
        for attempt in turn.attempts:
            self._attempts.labels(turn.upstream, attempt.failure or "none", attempt.phase).inc()
        self._again.labels("retry").inc(report.retries)
        self._again.labels("replay").inc(report.replays)
        if turn.first_output is not None:
            self._first_output.labels(turn.upstream).observe(turn.first_output)
        for cut in cuts_of(turn):
            self._silence.labels(turn.upstream).observe(cut.silent)
        self._bytes.labels("turn").inc(turn.bytes)
        self._heartbeats.inc(turn.heartbeats)

    def served(self, outcome: str, sent: int) -> None:
        """A request that was no turn has ended."""
        self._requests.labels(outcome).inc()
        self._bytes.labels("other").inc(sent)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(_registry_of_all() if "PROMETHEUS_MULTIPROC_DIR" in os.environ else self._registry)


def _registry_of_all() -> CollectorRegistry:
    registry = CollectorRegistry()
    collect: Callable[[CollectorRegistry], object] = MultiProcessCollector
    collect(registry)
    return registry
