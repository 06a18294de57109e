"""The same schedules on real sockets, against the lab: ``make prove-sockets``.

    python -m proof.sockets --schedules 2000 --seed 7
    python -m proof.sockets --seed 7 --only 4711

What no socket does, or only in minutes, is done by what comes nearest: an attempt that is lost before its request was
sent is closed behind it, and silences are short. The schedules and the judge are those of :mod:`proof.prove`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import msgspec
import trustme

from conformance.faces import Ask, Outcome, drive, drive_async
from proof.judge import judge
from proof.prove import summary, tell
from proof.schedules import ANSWERS, LASTING, Act, Schedule, ScheduledServer, draw, events_of, pieces_of, request_of
from properties.playing import Played
from unbroken.core.dialect import Call
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Request
from unbroken.lab import Background, Fault, Upstream
from unbroken.lab.background import purpose_of
from unbroken.lab.record import RecordedRequest

SCHEDULES = 2000
SEED = 20261127
AT_ONCE = 6

TRANSPORTS = ("http1", "http1-tls", "http2")
FACES: dict[str, Callable[[Ask], Outcome]] = {
    "blocking": drive,
    "asyncio": functools.partial(anyio.run, drive_async, backend="asyncio"),
    "trio": functools.partial(anyio.run, drive_async, backend="trio"),
}

QUICKLY: dict[str, Any] = {
    "backoff_initial": 0.002,
    "backoff_max": 0.004,
    "settle_timeout": 0.2,
    "unreachable_for": 1.0,
    "ping_interval": 0.0,
}
"""Of a policy: waits that cost no time."""

MOST_REQUESTS = 200

SPOKEN = (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
PAUSE = 0.03
"""Seconds of a silence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledAsk(Ask):
    """One turn of a schedule."""

    schedule: Schedule

    def request(self) -> tuple[Request, Call]:
        """See :meth:`Ask.request`."""
        request, call = request_of(self.schedule)
        path = request.url.removeprefix("https://llm.example.com")
        headers = ((b"content-type", b"application/json"),)
        return msgspec.structs.replace(request, url=self.url + path, headers=headers), call


class World:
    """What all schedules share: a certificate, and who trusts it."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self._client = ssl.create_default_context()
        authority.configure_trust(self._client)
        self._servers: dict[str, ssl.SSLContext | None] = {"http1": None}
        for transport in TRANSPORTS[1:]:  # one each: the lab sets the protocols of a context
            self._servers[transport] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)

    def verdict(self, schedule: Schedule) -> tuple[str, Played | None]:
        """Play a schedule; return how it broke the rule, ``""`` if it did not."""
        try:
            played, server = self._play(schedule)
            return judge(schedule, server, played), played
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is none of what a turn may raise
            return f"{type(exc).__name__}: {exc}", None

    def _play(self, schedule: Schedule) -> tuple[Played, ScheduledServer]:
        transport, face = road_of(schedule)
        server = ScheduledServer(without_comments(schedule))
        upstream = Upstream(
            faults=[fault_of(schedule, transport, attempt) for attempt in range(1, MOST_REQUESTS)],
            answer=ANSWERS[schedule.answer],
            continuation=server.continuation if schedule.choice == "continue" else None,
            background=Background(),
            ssl_context=self._servers[transport],
            http2=transport == "http2",
        )
        with upstream:
            style = schedule.style if schedule.choice == "continue" else None
            ask = ScheduledAsk(
                url=upstream.origin,
                tls=self._client,
                policy=dataclasses.replace(schedule.policy(), **QUICKLY),
                continuation=style,
                proxy="",
                schedule=schedule,
            )
            outcome = FACES[face](ask)
        return _played(ask, outcome, server, upstream), server


def without_comments(schedule: Schedule) -> Schedule:
    """Return the schedule as the lab plays it, which sends no heartbeats here."""
    acts = tuple(dataclasses.replace(act, comments=0) for act in schedule.acts)
    return dataclasses.replace(schedule, acts=acts)


def road_of(schedule: Schedule) -> tuple[str, str]:
    """Return over what a schedule is played, and by which loop."""
    return TRANSPORTS[schedule.number % 3], list(FACES)[schedule.number // 3 % 3]


def fault_of(schedule: Schedule, transport: str, attempt: int) -> Fault | None:
    """Return what goes wrong of an attempt of this number."""
    act = schedule.act(attempt)
    events = events_of(pieces_of(schedule.wire, schedule.answer, 1))
    at_byte, at_event = int(act.at * len(b"".join(events))), int(act.at * len(events))
    match act.kind:
        case "whole" | "astray":
            return None
        case "cut":
            return _cut(act, transport, at_byte)
        case "polite":
            return Fault("clean_end", "after_bytes", offset=at_byte)
        case "error":
            members = {} if act.passes else LASTING[schedule.wire]
            return Fault("error_event", "after_events", offset=at_event, error=members)
        case "malformed":
            return Fault("malformed", "after_events", offset=at_event)
        case "silence" | "suspect" | "caller":
            return Fault("pause", "after_bytes", offset=at_byte, seconds=PAUSE)
        case "refused" if act.status >= 300:
            headers = {} if act.retry_after is None else {"retry-after": "0" if act.retry_after < 60 else "61"}
            return Fault("status", "before_headers", status=act.status, headers=headers)
        case "other" | "refused":
            page = b"<html><body>Log in</body></html>"
            return Fault("status", "before_headers", status=200, headers={"content-type": "text/html"}, body=page)
    return Fault("rst" if act.failure is Failure.RESET else "fin", "before_headers")


def _cut(act: Act, transport: str, at_byte: int) -> Fault:
    """Return the cut that comes nearest to how an attempt is lost."""
    of_http2 = {Failure.STREAM_RESET: "rst_stream", Failure.TOO_MANY_PINGS: "goaway", Failure.BROKEN_FRAMING: "goaway"}
    of_http1 = {Failure.TRUNCATED: "truncated_chunk", Failure.BROKEN_FRAMING: "bad_chunk"}
    kinds: dict[Failure, Any] = {Failure.TRUNCATED: "short_length", Failure.CLOSED: "fin", Failure.UNFINISHED: "fin"}
    kinds |= of_http2 if transport == "http2" else of_http1
    kind = kinds.get(act.failure, "rst")
    return Fault(kind, "after_bytes", offset=at_byte, then="close" if kind == "goaway" else "go_on")


def _played(ask: ScheduledAsk, outcome: Outcome, server: ScheduledServer, upstream: Upstream) -> Played:
    """Return what came of it as the judge reads it."""
    report = outcome.report
    played = Played(ask.request()[0], report, head=outcome.head, received=outcome.data or b"", error=outcome.error)
    has_output = False
    records = [one for one in upstream.requests if one.method == "GET" or purpose_of(one) == "generation"]
    for number, (record, attempt) in enumerate(zip(records, report.attempts, strict=True), 1):
        request = msgspec.structs.replace(played.request, method=record.method, url=ask.url + record.target)
        request = request.with_body(record.body)
        _adjust(server, server.expect(request, number), record, played, is_last=attempt is report.attempts[-1])
        played.requests.append(request)
        played.after_output.append(int(has_output))
        has_output |= attempt.phase in SPOKEN and not attempt.held and attempt.status == 200
    came = [number for number, sent in enumerate(played.deliveries, 1) if sent.startswith(played.received)]
    played.spoke = came[-1] if came and played.received else len(played.requests)
    return played


def _adjust(server: ScheduledServer, body: bytes, record: RecordedRequest, played: Played, *, is_last: bool) -> None:
    """Take what the lab has sent to be what came, but for the two things in which it is no schedule's server."""
    sent = record.sent
    if record.fault and record.fault.kind == "error_event" and len(sent) != len(body):
        server.said[-1] = len(sent)  # it speaks OpenAI's words in a stream that is taken up
    is_cut = record.fault is not None and record.fault.at == "after_bytes"
    if is_last and is_cut and played.received and sent.startswith(played.received):
        sent = played.received  # a reset discards what was not read
    played.deliveries.append(bytearray(sent))


@dataclasses.dataclass
class Sample:
    """What came of many schedules on sockets."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    broken: list[tuple[Schedule, str]] = dataclasses.field(default_factory=list)


def sample(schedules: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Sample:
    """Play so many schedules on sockets."""
    world, taken = World(), Sample()
    drawn = [draw(seed, number) for number in range(schedules)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for schedule, (wrong, played) in zip(drawn, pool.map(world.verdict, drawn), strict=True):
            taken.counts["schedules"] += 1
            if wrong:
                taken.broken.append((schedule, wrong))
            if played is not None:
                taken.counts[type(played.error).__name__ if played.error else "ended"] += 1
                taken.counts["requests"] += len(played.requests)
                taken.counts["resumed"] += len(played.report.resumes)
                taken.counts["continued"] += len(played.report.seams)
                taken.counts["replays"] += played.report.replays
            progress(taken.counts["schedules"])
    return taken


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Random schedules of faults on real sockets, judged by the rule.")
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="play this one alone, and tell it")
    options = parser.parse_args()
    logging.disable()  # of each retry there is a line
    if options.only is not None:
        schedule = draw(options.seed, options.only)
        wrong, played = World().verdict(schedule)
        return tell(schedule, wrong, played)
    began = time.monotonic()

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done:,} of {options.schedules:,} schedules ")
            sys.stderr.flush()

    taken = sample(options.schedules, options.seed, progress)
    return summary("prove-sockets", options.seed, taken.counts, taken.broken, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
