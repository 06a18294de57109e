"""Advice about a path: what to do about idle timers on it, from the silences after which attempts were cut.

A pure function of attempts, each with its path and what was configured there. Only ends that the other side made are
evidence; a limit of our own says nothing of the path. docs/advice.md has a row for each sentence.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import msgspec

from unbroken.core.failures import OWN_LIMITS, Failure, Row
from unbroken.core.route import MIN_INTERVAL, RouteRecord, ping_for

SIMILAR_CUTS = 3
"""How many cuts after about the same silence make a pattern."""

LATEST = 100
"""How many of the latest cuts count: older cuts may be from before the path was repaired."""

LEAST_SILENCE = 1.0
"""Seconds; what is cut sooner was not cut for its silence."""

USUAL_PING, USUAL_HEARTBEAT = 10.0, 15.0
"""Seconds: the intervals of PING and of the relay's heartbeat where no timer asks for shorter ones."""

CUTS = frozenset(
    failure.code
    for failure in Failure
    if failure.row is Row.LOST and failure not in (*OWN_LIMITS, Failure.TOO_MANY_PINGS, Failure.MISFIT)
)
"""Ends that tell of timers on the path: no limit of our own, complaint about PING, or text that does not fit."""

ENDS_OF_STREAM = frozenset(failure.code for failure in (Failure.STREAM_RESET, Failure.UNFINISHED, Failure.TRUNCATED))
"""Cuts of the answer alone, where HTTP/2 tells it from the connection: no idle timer of connections makes them."""


class Advice(enum.Enum):
    """A piece of advice: its sentence. The first one that fits a pattern is given."""

    GATEWAY_LOCAL = (
        "a gateway answers HTTP {status} after about {timer} without a word from its server, which no PING can prevent:"
        " raise that limit (nginx: proxy_read_timeout, haproxy: timeout server), or put `unbroken relay --heartbeat"
        " {beat} --early-heartbeat` between the two"
    )
    GATEWAY = (
        "a gateway answers HTTP {status} after about {timer} without a word from its server, which no PING can prevent:"
        " have that limit raised by whoever runs it"
    )
    ANSWER_ENDED_LOCAL = (
        "something on the way that reads HTTP ends answers after about {timer} without a byte of them, which no PING"
        " can prevent: raise that limit (nginx: proxy_read_timeout, haproxy: timeout server), start the server with"
        " --sse-ping-interval {beat} (llama.cpp), or put `unbroken relay --heartbeat {beat} --early-heartbeat` beside"
        " it"
    )
    ANSWER_ENDED = (
        "something on the way that reads HTTP ends answers after about {timer} without a byte of them, which no PING"
        " can prevent: have that limit raised, or take another path"
    )
    PING_IN_VAIN = (
        "something on the way cuts idle connections after about {timer}, although PING was answered on them: it counts"
        " the answer's bytes alone; have that limit raised, or take another path"
    )
    PING_IN_VAIN_LOCAL = (
        "something on the way cuts idle connections after about {timer}, although PING was answered on them: it counts"
        " the answer's bytes alone; raise that limit (nginx: proxy_read_timeout, haproxy: timeout server), start the"
        " server with --sse-ping-interval {beat} (llama.cpp), or put `unbroken relay --heartbeat {beat}"
        " --early-heartbeat` beside it"
    )
    PING_REFUSED = (
        "something on the way cuts idle connections after about {timer}, and the server has complained of PING, which"
        " would keep them busy: have one of the two limits raised"
    )
    PING_TOO_SLOW = (
        "something on the way cuts idle connections after about {timer}, sooner than PING can keep them busy, which"
        " is sent once a second at most: have that limit raised"
    )
    PING_LOWERED = (
        "something on the way cuts idle connections after about {timer}: since then PING is sent every {ping}, for an"
        " hour"
    )
    PING_OFF = (
        "something on the way cuts idle connections after about {timer}: turn PING on (--ping {other_ping},"
        " Policy.ping_interval), which keeps them busy while the model thinks"
    )
    PING_SELDOM = (
        "something on the way cuts idle connections after about {timer}, before PING is sent, every {ping}:"
        " --ping {other_ping} (Policy.ping_interval) keeps them busy"
    )
    PING_UNANSWERED = (
        "something on the way cuts idle connections after about {timer}, and PING was not answered on them: have that"
        " limit raised, or take another path"
    )
    OWN_TRANSPORT = (
        "something on the way cuts idle connections after about {timer}, and a transport that is handed in (inner=)"
        " sends no PING: Unbroken's own sends it wherever the server speaks HTTP/2"
    )
    HTTP2_OFF = (
        "something on the way cuts idle connections after about {timer}: let HTTP/2 be offered (http2=True), whose"
        " PING keeps them busy while the model thinks"
    )
    LOCAL_PROXIED = (
        "something on the way cuts idle connections after about {timer}, and over HTTP/1.1 no PING can prevent it:"
        " ask {host} without the proxy (--no-proxy), start the server with --sse-ping-interval {beat} (llama.cpp), or"
        " put `unbroken relay --heartbeat {beat} --early-heartbeat` on its side of the proxy"
    )
    LOCAL = (
        "something on the way cuts idle connections after about {timer}, and over HTTP/1.1 no PING can prevent it:"
        " raise that limit, start the server with --sse-ping-interval {beat} (llama.cpp), or put `unbroken relay"
        " --heartbeat {beat} --early-heartbeat` beside it"
    )
    HTTP1_PROXIED = (
        "something on the way cuts idle connections after about {timer}, and over HTTP/1.1 no PING can prevent it:"
        " raise that limit (v2ray: policy.levels.0.connIdle), go without the proxy (--no-proxy), or ask an https"
        " endpoint that speaks HTTP/2"
    )
    HTTP1 = (
        "something on the way cuts idle connections after about {timer}, and over HTTP/1.1 no PING can prevent it:"
        " have that limit raised, or ask an https endpoint that speaks HTTP/2"
    )


class SilentCut(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that the other side cut before its first output, after a silence; or a gateway that gave up waiting.

    Attributes:
        at: time of the cut; seconds since the epoch in the relay, since the turn's start in a report.
        silent: seconds without a byte of the response.
        pinged: whether PING was answered in that silence.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"`` or ``""`` if unknown.
        gateway_status: the HTTP status by which a gateway said that it gave up, 0 if the connection was cut.
        ends_stream: whether the answer alone was ended over HTTP/2, and the connection was not.
        lowered_ping: seconds between PINGs on this path from this cut on, ``None`` if it taught nothing.
        route: the path, and what was configured there.
    """

    at: float
    silent: float
    pinged: bool = False
    http_version: str = ""
    gateway_status: int = 0
    ends_stream: bool = False
    lowered_ping: float | None = None
    route: RouteRecord = RouteRecord()


def idle_timer(silences: Sequence[float]) -> float | None:
    """Return the silence in seconds at which cuts cluster, or ``None`` if they do not.

    A cluster is at least :data:`SIMILAR_CUTS` cuts, and half of all cuts, within a fifth (or 1 s) of one of them.
    """
    if not silences:
        return None
    clusters = ([silent for silent in silences if is_near(silent, middle)] for middle in silences)
    largest = max(clusters, key=len)
    if len(largest) < SIMILAR_CUTS or 2 * len(largest) < len(silences):
        return None
    import statistics  # slow to import, and rarely needed

    return statistics.median(largest)


def advice(cuts: Iterable[SilentCut]) -> str:
    """Return what to do about cuts that cluster at one silence (an idle timer), path by path; ``""`` without a cluster.

    Args:
        cuts: the oldest first. With several paths among them, each sentence names its own.
    """
    paths: dict[tuple[str, str], list[SilentCut]] = {}
    for cut in list(cuts)[-LATEST:]:
        paths.setdefault((cut.route.host, cut.route.proxy), []).append(cut)
    found = {path: sentence for path, of_path in paths.items() if (sentence := _of_path(of_path))}
    if len(paths) < 2:
        return "".join(found.values())
    return " · ".join(f"{_named(*path)}: {sentence}" for path, sentence in found.items())


def lesson(silent: float, ping: float) -> str:
    """Return the sentence about a cut that has lowered the interval of PING.

    Args:
        silent: seconds without a byte of the response.
        ping: the new interval in seconds.
    """
    return f"cut after {rounded(silent)}: pinging every {rounded(ping)} from now on"


def parted(sentence: str) -> tuple[str, str]:
    """Return what a sentence of :class:`Advice` says of the path, and what it says to do."""
    observed, _, step = sentence.partition(": ")
    return observed, step


def _of_path(cuts: Sequence[SilentCut]) -> str:
    timer = idle_timer([cut.silent for cut in cuts])
    if timer is None:
        return ""
    cluster = [cut for cut in cuts if is_near(cut.silent, timer)]
    last = cluster[-1]
    lowered = [cut.lowered_ping for cut in cluster if cut.lowered_ping is not None]
    return _choice(cluster, timer).value.format(
        timer=rounded(timer),
        status=last.gateway_status,
        host=last.route.host,
        ping=rounded(lowered[-1] if lowered else last.route.ping),
        other_ping=f"{option_value(ping_for(timer), USUAL_PING):g}",
        beat=f"{option_value(timer / 3, USUAL_HEARTBEAT):g}",
    )


def _choice(cluster: Sequence[SilentCut], timer: float) -> Advice:
    """Return the advice for cuts of one path that cluster at a silence."""
    last = cluster[-1]
    if last.gateway_status:
        return Advice.GATEWAY_LOCAL if last.route.is_local else Advice.GATEWAY
    if last.ends_stream:
        return Advice.ANSWER_ENDED_LOCAL if last.route.is_local else Advice.ANSWER_ENDED
    if last.http_version == "HTTP/2" and last.route.sends_ping:
        return _choice_over_http2(cluster, timer)
    return _choice_without_ping(last.route)


def _choice_over_http2(cluster: Sequence[SilentCut], timer: float) -> Advice:
    route = cluster[-1].route
    if any(cut.pinged for cut in cluster):
        return Advice.PING_IN_VAIN_LOCAL if route.is_local else Advice.PING_IN_VAIN
    if route.ping_refused:
        return Advice.PING_REFUSED
    if timer < 1.25 * MIN_INTERVAL:
        return Advice.PING_TOO_SLOW
    if any(cut.lowered_ping is not None for cut in cluster):
        return Advice.PING_LOWERED
    if not route.ping:
        return Advice.PING_OFF
    late = route.ping > timer / 2 and route.ping > option_value(ping_for(timer), USUAL_PING)
    return Advice.PING_SELDOM if late else Advice.PING_UNANSWERED


def _choice_without_ping(route: RouteRecord) -> Advice:
    if not route.sends_ping:
        return Advice.OWN_TRANSPORT
    if route.secure and not route.offers_http2:
        return Advice.HTTP2_OFF
    if route.is_local:
        return Advice.LOCAL_PROXIED if route.proxy else Advice.LOCAL
    return Advice.HTTP1_PROXIED if route.proxy else Advice.HTTP1


def _named(host: str, proxy: str) -> str:
    return f"{host or 'a host'} through {proxy}" if proxy else host or "a host"


def rounded(seconds: float) -> str:
    """Return a duration for a sentence."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def option_value(seconds: float, usual: float) -> float:
    """Return an interval for an option: whole seconds, at least one, and not longer than the usual one."""
    return max(1.0, min(usual, seconds // 1))


def is_near(silent: float, middle: float) -> bool:
    """Return whether two silences, in seconds, are about the same: within a fifth, or 1 s."""
    return abs(silent - middle) <= max(1.0, 0.2 * middle)
