"""The verdict on an idle test, a pure function of it: what cuts, after how long, how, who is likely, and what helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unbroken.core.advice import USUAL_HEARTBEAT, USUAL_PING, option_value, rounded
from unbroken.core.finding import Finding
from unbroken.core.route import is_loopback, ping_for
from unbroken.doctor.silences import BARE, POLITE, End, FarEndKind, IdleReport, Keeping, SilenceTrial, SilentConnection

NOTES = frozenset({"far_end_timer"})
"""Codes of findings that are no fault of the path."""

_RAISE_AT_PROXY = (
    "raise that limit (v2ray: policy.levels.0.connIdle, squid: read_timeout, tinyproxy: Timeout, privoxy:"
    " socket-timeout)"
)


class IdleVerdict:
    """What an idle test means.

    Args:
        report: what was found, also if the test was interrupted.
        ping: seconds between two PINGs as configured, 0 for none.

    Attributes:
        limit: seconds of silence after which the path cuts, ``None`` if it was not seen to.
        findings: the findings.
    """

    def __init__(self, report: IdleReport, ping: float) -> None:
        self._trials = {trial.kind: trial for trial in report.trials}
        self._ping = ping
        cutting = self._cutting
        self.limit = None if cutting is None or cutting.limit is None else round(cutting.limit, 1)
        self.findings = [*_of_proxy(report), *([self._of_cuts(cutting)] if cutting else []), *self._of_far_end()]

    @property
    def _cutting(self) -> SilenceTrial | None:
        """The trial that tells most of who cuts."""
        order = (FarEndKind.HERE, FarEndKind.ECHO, FarEndKind.PROVIDER)
        trials = (self._trials[kind] for kind in order if kind in self._trials)
        return next((trial for trial in trials if trial.limit is not None), None)

    # The path

    def _of_cuts(self, trial: SilenceTrial) -> Finding:
        helps, step = self._help(trial)
        return Finding(
            "path_cuts_idle",
            f"{self._who(trial)} {_does(trial)}; {helps}{_of_keepalive(trial)}",
            f"{step}, or {_RAISE_AT_PROXY if trial.proxy else 'have that limit raised'}",
        )

    def _who(self, trial: SilenceTrial) -> str:
        """Return who is likely to cut."""
        if trial.kind is FarEndKind.HERE:
            return f"{_named(trial.proxy)}, or what it forwards to,"
        between = _between(trial)
        if not trial.proxy:
            return between
        if self._stands(FarEndKind.HERE, trial):
            return f"not the proxy, through which a server on this machine stays connected: {between}, behind it,"
        near = self._trials.get(FarEndKind.DIRECT)
        if near and near.limit is not None and _alike(near.limit, trial.limit or 0.0):
            return f"not the proxy, as the same happens without it: {between}"
        if self._stands(FarEndKind.DIRECT, trial):
            return _named(trial.proxy)
        return f"{_named(trial.proxy)}, or {between}, behind it,"

    def _stands(self, kind: FarEndKind, cut: SilenceTrial) -> bool:
        """Return whether connections to another far end stood for longer than those that were cut."""
        other = self._trials.get(kind)
        return other is not None and other.limit is None and other.stood >= 1.1 * (cut.limit or 0.0)

    def _help(self, trial: SilenceTrial) -> tuple[str, str]:
        """Return what keeps connections, and the next step."""
        limit = trial.limit or 0.0
        ping, beat = option_value(ping_for(limit), USUAL_PING), option_value(limit / 3, USUAL_HEARTBEAT)
        kept = [one.every for one in trial.of(Keeping.PING) if _keeps(one, limit)]
        tried = trial.http_version == "HTTP/2" and any(one.end is not End.OPEN for one in trial.of(Keeping.PING))
        if kept:
            return self._of_ping(max(kept), ping)
        if any(_keeps(one, limit) for one in trial.of(Keeping.COMMENTS)):
            why = "HTTP/2 PING does not, as bytes of the answer alone count" if tried else "without HTTP/2 no PING can"
            return (
                f"SSE comments from the server keep them; {why}",
                f"start the server with --sse-ping-interval {beat:g} (llama.cpp), or put `unbroken relay --heartbeat"
                f" {beat:g} --early-heartbeat` on its side",
            )
        if trial.kind is FarEndKind.PROVIDER and limit < 2 * USUAL_PING:
            return (
                f"HTTP/2 PING every {USUAL_PING:g} s, and no more often on a provider, comes too late for it",
                f"--ping {ping:g} (Policy.ping_interval) comes in time; --echo with an `unbroken lab echo` shows it",
            )
        busy = [one for one in trial.of(Keeping.COMMENTS) if trial.is_cut(one) and one.seconds <= 1.3 * limit + 1.0]
        why = ", so it limits their whole time" if busy else ""
        return f"nothing that was tried keeps them{why}", "take another path (--proxy, --no-proxy)"

    def _of_ping(self, kept: float, ping: float) -> tuple[str, str]:
        told = f"HTTP/2 PING every {kept:g} s keeps them"
        if self._ping and kept >= self._ping:
            how = "as Unbroken does unless told otherwise" if self._ping == USUAL_PING else "as you have set it"
            return told, f"send PING every {self._ping:g} s, {how} (unbroken run, exec, relay)"
        return told, f"--ping {ping:g} (Policy.ping_interval) comes in time"

    # The far end

    def _of_far_end(self) -> Iterator[Finding]:
        """Yield a note of a far end that ends idle connections itself, and says so."""
        trial = self._trials.get(FarEndKind.PROVIDER)
        polite = [one for one in trial.silent if one.end in POLITE] if trial else []
        if trial is None or not polite:
            return
        first = min(polite, key=lambda one: one.seconds)
        yield Finding(
            "far_end_timer",
            f"{trial.host} itself, or what reads TLS in its name, ends connections without a request after about"
            f" {rounded(first.seconds)} ({first.end}): that is its own timer, and says nothing of the path beyond that"
            " time",
        )


def _of_proxy(report: IdleReport) -> Iterator[Finding]:
    if report.intercepted_by:
        yield Finding(
            "tls_intercepted",
            f"the proxy reads TLS: a server on this machine, as it is seen through it, has a certificate that"
            f" {report.intercepted_by} signed, as the provider's is; PING ends at the proxy, and what it does with"
            " silent answers is its own matter",
            "have the provider exempted from inspection",
        )
    if report.answers_held_by:
        yield Finding(
            "answers_held",
            f"{_named(report.answers_held_by)} hands on an answer once it is whole: a stream comes all at once, at its"
            " end, and no heartbeat comes through before",
            "have the proxy pass answers on as they come, or take the provider out with NO_PROXY (--no-proxy)",
        )


def _does(trial: SilenceTrial) -> str:
    """Return what is done to silent connections, in a clause."""
    count = f"{len(trial.cut)} of {len(trial.silent)} silent connections"
    limit = rounded(trial.limit or 0.0)
    if all(one.end is End.SILENCE for one in trial.cut):
        within = f"after between {rounded(trial.stood)} and {limit}" if trial.stood else f"within {limit}"
        return f"forgets idle connections {within}, without a word: {count} carried nothing any more"
    if {one.end for one in trial.cut} <= BARE:
        return f"cuts idle connections after about {limit} ({count}, by {_ends(trial.cut)})"
    return f"ends answers without a byte after about {limit} ({count}, by {_ends(trial.cut)})"


def _ends(cut: Sequence[SilentConnection]) -> str:
    return " and ".join(dict.fromkeys(one.end.value for one in cut))


def _of_keepalive(trial: SilenceTrial) -> str:
    """Return what TCP keepalive does, which ends at the proxy."""
    found = [one for one in trial.of(Keeping.TCP_KEEPALIVE) if one.end is not End.OPEN]
    if not found:
        return ""
    helps = _keeps(found[0], trial.limit or 0.0)
    if trial.proxy:
        return f"; TCP keepalive {'helps, and' if helps else 'does not help:'} it tests only the hop to the proxy"
    return f"; TCP keepalive {'helps' if helps else 'does not help'}"


def _keeps(connection: SilentConnection, limit: float) -> bool:
    """Return whether a connection was kept, for clearly longer than others were silent when they were cut."""
    return connection.end is End.KEPT and connection.seconds >= 1.1 * limit


def _named(proxy: str) -> str:
    host = proxy.partition("://")[2].rpartition(":")[0].strip("[]")
    return f"the local proxy at {proxy}" if is_loopback(host) else f"the proxy at {proxy} (a corporate proxy, perhaps)"


def _between(trial: SilenceTrial) -> str:
    """Return what may stand on the way, by how connections are ended."""
    ends = {one.end for one in trial.cut}
    if not ends <= BARE:
        return f"something that reads HTTP on the way to {trial.host} (a gateway or a load balancer)"
    likely = {
        End.FIN: "a load balancer or a proxy, most likely",
        End.RST: "a firewall, NAT or a proxy, most likely",
        End.SILENCE: "NAT or a firewall, most likely",
    }
    first = likely.get(trial.cut[0].end, "")
    own = "" if trial.kind is FarEndKind.ECHO else "; it may be the far end's own"
    return f"something on the way to {trial.host} ({first}{own})"


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= max(2.0, 0.3 * max(one, other))
