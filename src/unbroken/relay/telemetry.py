"""Telemetry: the access log, a line for each request, and Prometheus' metrics. No query, no key, no content.

Requests to the relay itself (its page, its metrics, a browser's preflight) are shown only if they are refused.

No label of a metric can take more values than there are upstreams, dialects, outcomes, failures and phases. Every relay
has a registry of its own. If several processes serve together, prometheus-client keeps the figures in files that all of
them read (its multiprocess mode), and any of them answers for all.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any

import msgspec

from unbroken.errors import MissingExtra

try:
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
except ImportError as exc:
    raise MissingExtra("the relay needs", "relay", exc) from None

from unbroken.core.actions import PathNotice, RetryEvent
from unbroken.core.report import Report
from unbroken.drivers.notices import continued, describe, resumed
from unbroken.relay.kept.worth import Worth
from unbroken.relay.recorder import Outcome, RequestRecord

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each series: noise

MAX_TEXT = 500
"""Maximum characters of a path or a detail in the log: a longer one is an attempt to flood or break it."""

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
"""Content type of the metrics."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder of these files; set before prometheus-client is imported."""

_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900)
"""Buckets in seconds, dense around common idle timers."""


class AccessLog:
    """The access log: a line for each request, retry, replay and path that does not answer, in printable characters.

    Args:
        write: takes a line without its end.
        as_json: write one JSON object per line instead of text.
        quiet: leave out requests that succeeded at the first attempt.
    """

    def __init__(self, write: Callable[[str], None], *, as_json: bool = False, quiet: bool = False) -> None:
        self._write = write
        self._as_json = as_json
        self._quiet = quiet

    def started(self) -> None:
        """Do nothing: a request has its line when it ends."""

    def retried(self, turn_id: str, event: RetryEvent) -> None:
        """Write a line for the lost attempt. In JSON, the request's own line has everything."""
        if not self._as_json:
            self._write(f"{turn_id} ↻ {_plain(describe(event))}")
            if event.advice:
                self._write(f"{turn_id}   {_plain(event.advice)}")

    def noticed(self, turn_id: str, notice: PathNotice) -> None:
        """Write a line for a path that does not answer, or answers again. Logs in JSON have no such line."""
        if not self._as_json:
            self._write(f"{turn_id} … {_plain(notice.text)}")

    def ended(self, record: RequestRecord) -> None:
        """Write the line of a request that has ended."""
        if self._quiet and record.outcome in (Outcome.ANSWERED, Outcome.PASSED) and len(record.attempts) < 2:
            return
        record = msgspec.structs.replace(record, path=_plain(record.path), detail=_plain(record.detail))
        self._write(msgspec.json.encode(_as_fields(record)).decode() if self._as_json else _in_words(record))

    def store(self, problem: str) -> None:
        """Write a line for a store that fails, or, with ``""``, takes turns once more."""
        said = f"the store fails, so that turns cannot be collected: {problem}" if problem else "the store is back"
        line = msgspec.json.encode({"time": timestamp(), "store": problem}).decode() if self._as_json else said
        self._write(line)


def timestamp(seconds: float | None = None) -> str:
    """Format a time as in the log: ISO 8601 in UTC.

    Args:
        seconds: since the epoch; ``None`` for now.
    """
    moment = (
        datetime.datetime.now(datetime.UTC)
        if seconds is None
        else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    )
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_fields(record: RequestRecord) -> dict[str, Any]:
    """Return the fields of the line in JSON."""
    return {
        "time": timestamp(record.started + record.elapsed),
        "id": record.id,
        "method": record.method,
        "path": record.path,
        "upstream": record.upstream,
        "dialect": record.dialect,
        "status": record.status,
        "outcome": record.outcome,
        "attempts": len(record.attempts),
        "retries": record.retries,
        "replays": record.replays,
        "lost": _losses(record),
        "seams": record.seams,
        "resumes": record.resumes,
        "unacknowledged": record.unacknowledged,
        "elapsed": round(record.elapsed, 3),
        "first_output": None if record.first_output is None else round(record.first_output, 3),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "heartbeats": record.heartbeats,
        "detail": record.detail,
    }


def _in_words(record: RequestRecord) -> str:
    parts = [
        f"{record.id} {record.method} {record.path}",
        f"{record.status or '-'} {record.outcome}",
        f"{record.elapsed:.1f} s",
    ]
    if record.first_output is not None:
        parts.append(f"first output {record.first_output:.1f} s")
    if losses := _losses(record):
        attempts = len(record.attempts)
        parts.append(f"{attempts} attempt{'s' * (attempts != 1)}, lost {', '.join(losses)}")
    if record.seams:
        parts.append(continued(record.seams))
    if record.resumes:
        parts.append(resumed(record.resumes))
    if record.background:
        parts.append(record.background)
    if record.detail:
        parts.append(record.detail)
    return " · ".join(parts)


def _losses(record: RequestRecord) -> tuple[str, ...]:
    return Report(attempts=record.attempts).losses


def _plain(text: str) -> str:
    """Return the text, shortened, with escapes for characters that could end a line or control a terminal."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}…"
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}"


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
        self._resent = Counter(
            "unbroken_attempts_again", "Attempts made again, as a retry or as a replay.", ["kind"], registry=registry
        )
        self._seams = Counter(
            "unbroken_seams",
            "Cuts after output behind which the answer was continued.",
            ["upstream"],
            registry=registry,
        )
        self._resumes = Counter(
            "unbroken_resumes", "Cuts behind which the stream was taken up.", ["upstream"], registry=registry
        )
        self._unacknowledged = Counter(
            "unbroken_unacknowledged",
            "Responses that were to go on at the server, and whose end (cancel, delete) it did not acknowledge.",
            ["upstream", "kind"],
            registry=registry,
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
            "Seconds, at least one, without a byte of the response until a cut before output, or a 504.",
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
        self._kept = Counter(
            "unbroken_kept_turns",
            "Turns whose client had gone: kept, collected by a client that came back, or dropped.",
            ["event"],
            registry=registry,
        )
        self._kept_bytes = Counter("unbroken_kept_bytes", "Bytes of these turns.", ["event"], registry=registry)
        self._kept_tokens = Counter(
            "unbroken_kept_tokens",
            "Output tokens of these turns, as their provider has reported them, or estimated from their bytes.",
            ["event", "source"],
            registry=registry,
        )
        for counter, kinds in ((self._resent, ("retry", "replay")), (self._bytes, ("turn", "other"))):
            for kind in kinds:
                counter.labels(kind)  # present from the start, so that the first one is seen as a change

    def started(self) -> None:
        """Count a turn that starts."""
        self._running.inc()

    def retried(self, turn_id: str, event: RetryEvent) -> None:
        """Do nothing: attempts are counted when their turn ends."""

    def noticed(self, turn_id: str, notice: PathNotice) -> None:
        """Do nothing: a path that does not answer is no event that is counted."""

    def ended(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        if record.is_turn:
            self._count_turn(record)
        else:
            self._requests.labels(record.outcome or "").inc()
            self._bytes.labels("other").inc(record.bytes_out)

    def kept(self, event: str, worth: Worth) -> None:
        """Count what became of a turn whose client had gone: ``kept``, ``collected`` or ``dropped``."""
        self._kept.labels(event).inc()
        self._kept_bytes.labels(event).inc(worth.bytes)
        self._kept_tokens.labels(event, "reported" if worth.is_reported else "estimated").inc(worth.tokens)

    def text(self) -> bytes:
        """Return all metrics, in Prometheus' text format."""
        return generate_latest(_registry_of_all() if METRICS_FOLDER in os.environ else self._registry)

    def _count_turn(self, turn: RequestRecord) -> None:
        self._running.dec()
        self._turns.labels(turn.upstream, turn.dialect, turn.outcome or "").inc()
        if turn.saved:
            self._saved.labels(turn.upstream).inc()
        for attempt in turn.attempts:
            self._attempts.labels(turn.upstream, attempt.failure or "none", attempt.phase).inc()
        self._resent.labels("retry").inc(turn.retries)
        self._resent.labels("replay").inc(turn.replays)
        if turn.seams:
            self._seams.labels(turn.upstream).inc(len(turn.seams))
        if turn.resumes:
            self._resumes.labels(turn.upstream).inc(len(turn.resumes))
        for kind in turn.unacknowledged:
            self._unacknowledged.labels(turn.upstream, kind).inc()
        if turn.first_output is not None:
            self._first_output.labels(turn.upstream).observe(turn.first_output)
        for cut in turn.cuts:
            self._silence.labels(turn.upstream).observe(cut.silent)
        self._bytes.labels("turn").inc(turn.bytes_out)
        self._heartbeats.inc(turn.heartbeats)


def _registry_of_all() -> CollectorRegistry:
    registry = CollectorRegistry()
    collect: Callable[[CollectorRegistry], object] = MultiProcessCollector
    collect(registry)
    return registry
