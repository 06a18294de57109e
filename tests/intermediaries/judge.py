"""Compare what we say with what is configured: a claim is a phrase, and a check whether it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from intermediaries.kinds import Version


@dataclass(frozen=True)
class Truth:
    """What is configured where something was said.

    Attributes:
        idle: shortest and longest silence in seconds after which the path cuts; ``None`` for no timer.
        proxy: whether a proxy is configured at the client.
        version: what the endpoint offers.
        ping: the interval of PING in seconds, 0 for none.
        ping_helps: whether PING keeps the timer from firing, if it is frequent enough.
    """

    idle: tuple[float, float] | None
    proxy: bool
    version: Version
    ping: float
    ping_helps: bool

    @property
    def pings(self) -> bool:
        """Whether PINGs can have been sent before the timer fired; after a cut they are sent more often."""
        return self.version == "HTTP/2" and self.ping > 0


LEAST_PING = 1.25
"""Seconds; PING is sent once a second at most, and its answer takes some of that."""

LENIENCE = 1.5
"""Seconds by which a timer may be misjudged: the machine that measures is busy."""

Check = Callable[[re.Match[str], Truth], str]
"""Returns what is wrong with a claim, ``""`` if it holds."""


def _timer(claim: re.Match[str], truth: Truth) -> str:
    if truth.idle is None:
        return "nothing on the way has an idle timer"
    shortest, longest = truth.idle
    told = float(claim[1])
    return (
        ""
        if shortest - LENIENCE <= told <= longest + LENIENCE
        else f"the timer fires after {shortest:g} to {longest:g} s"
    )


def _ping_did_not_help(_: re.Match[str], truth: Truth) -> str:
    if not truth.pings:
        return "no PING was sent"
    if truth.ping_helps and truth.idle and truth.ping >= truth.idle[0]:
        return f"one PING in {truth.ping:g} s keeps nothing busy that is cut after {truth.idle[0]:g} s"
    return "PING does keep this path busy" if truth.ping_helps else ""


def _turn_on(_: re.Match[str], truth: Truth) -> str:
    if truth.version == "HTTP/1.1":
        return "there is no PING over HTTP/1.1"
    if truth.ping:
        return f"PING is on, every {truth.ping:g} s"
    return "" if truth.ping_helps else "PING does not reach what cuts here"


def _interval(claim: re.Match[str], truth: Truth) -> str:
    if truth.idle is None or not truth.ping_helps or truth.version == "HTTP/1.1":
        return "no interval of PING helps here"
    told = float(claim[1])
    return "" if told < truth.idle[0] else f"the timer fires after {truth.idle[0]:g} s"


def _other_version(_: re.Match[str], truth: Truth) -> str:
    if truth.version == "HTTP/2":
        return "the endpoint speaks HTTP/2"
    return "" if truth.ping_helps else "over HTTP/2 it is cut as well"


def _first_version(_: re.Match[str], truth: Truth) -> str:
    return "" if truth.version == "HTTP/1.1" else "the connection is HTTP/2"


def _proxy(_: re.Match[str], truth: Truth) -> str:
    return "" if truth.proxy else "no proxy is configured"


def _gateway(claim: re.Match[str], truth: Truth) -> str:
    if truth.ping_helps:
        return "nothing here reads HTTP"
    return _timer(claim, truth)


def _no_ping_helps(_: re.Match[str], truth: Truth) -> str:
    return "PING does keep this path busy" if truth.version == "HTTP/2" and truth.ping_helps else ""


def _sent(claim: re.Match[str], truth: Truth) -> str:
    return _interval(claim, truth) if truth.pings else "no PING is sent"


def _seldom(claim: re.Match[str], truth: Truth) -> str:
    return "" if truth.pings and truth.ping == float(claim[1]) else f"PING is asked for every {truth.ping:g} s"


def _too_slow(_: re.Match[str], truth: Truth) -> str:
    return "" if truth.idle and truth.idle[0] < LEAST_PING else f"PING every {LEAST_PING:g} s keeps them busy"


def _heartbeat(claim: re.Match[str], truth: Truth) -> str:
    return "" if truth.idle and float(claim[1]) < truth.idle[0] else "a heartbeat as rare keeps nothing busy"


def _never(reason: str) -> Check:
    return lambda claim, truth: reason


ALIVE = _never("every path here is alive")

CLAIMS: Sequence[tuple[re.Pattern[str], Check]] = tuple(
    (re.compile(pattern, re.IGNORECASE), check)
    for pattern, check in (
        (r"(?:connections|answers) after (?:about )?([\d.]+) s", _timer),
        (r"(?:silent|idle) for (?:about )?([\d.]+) s", _timer),
        (r"gateway answers HTTP \d+ after (?:about )?([\d.]+) s", _gateway),
        (r"although PING|despite PING|PING kept (?:it|them|the path) busy", _ping_did_not_help),
        (r"no PING can prevent|counts the answer's bytes alone", _no_ping_helps),
        (r"(?:PING is sent|pinging) every ([\d.]+) s(?: from|, for)", _sent),
        (r"before PING is sent, every ([\d.]+) s", _seldom),
        (r"sooner than PING can", _too_slow),
        (r"--(?:heartbeat|sse-ping-interval) ([\d.]+)", _heartbeat),
        (r"turn PING on|switch PING on|turn on PING", _turn_on),
        (r"--ping ([\d.]+)", _interval),
        (r"endpoint that speaks HTTP/2|an HTTP/2 endpoint", _other_version),
        (r"over HTTP/1\.1", _first_version),
        (r"the proxy \(--no-proxy\)|--no-proxy|\b(?:the|this|your) proxy\b|proxy unreachable", _proxy),
        (r"path dead|no answer (?:to PING|from)|PING was not answered|unanswered|second connection", ALIVE),
        (r"too many PINGs|complained of PING", _never("nothing here counts PINGs")),
        (r"^Traceback", _never("nothing may crash")),
        (r"http2=True|inner=", _never("the transport is Unbroken's own, and offers HTTP/2")),
        (r"idle timeout\b(?!s)", _never("no idle timeout of ours is as short")),
        (r"nothing came of the response", _never("no stall limit of ours is as short")),
        (r"network unreachable|no connection in time|no such host|cannot connect", _never("everything is reachable")),
    )
)

ADVICE = re.compile(
    r"something on the way|a gateway answers|cuts (?:idle|silent)|raise that|take another path|pinging every",
    re.IGNORECASE,
)
"""What an advice has in it."""


@dataclass(frozen=True, order=True)
class Wrong:
    """A claim that does not hold.

    Attributes:
        claim: the words.
        reason: what is the case.
        sentence: where it was said.
    """

    claim: str
    reason: str
    sentence: str


def wrong(said: Sequence[str], truth: Truth) -> list[Wrong]:
    """Return the claims that do not hold, each once."""
    return sorted({found for sentence in said for found in _wrong(sentence, truth)})


def _wrong(sentence: str, truth: Truth) -> Iterator[Wrong]:
    claims = 0
    for pattern, check in CLAIMS:
        for claim in pattern.finditer(sentence):
            claims += 1
            if reason := check(claim, truth):
                yield Wrong(claim[0], reason, sentence)
    if ADVICE.search(sentence) and not claims:
        yield Wrong("(advice)", "no claim in it is known to tests/intermediaries/judge.py", sentence)


def advice(said: Sequence[str]) -> list[str]:
    """Return the advice in what was said, each once, without what stands before it."""
    found = [ADVICE.search(sentence) for sentence in said]
    return list(dict.fromkeys(match.string[match.start() :] for match in found if match))
