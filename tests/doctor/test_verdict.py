"""The verdict: what an idle test means, who is named, and what helps."""

from __future__ import annotations

import pytest

from unbroken.doctor.silences import End, FarEndKind, IdleReport, Keeping, SilenceTrial, SilentConnection
from unbroken.doctor.verdict import NOTES, IdleVerdict

PROXY = "http://127.0.0.1:10808"
HOST = "api.example.com"


def trial(
    kind: FarEndKind, *connections: SilentConnection, proxy: str = PROXY, version: str = "HTTP/2"
) -> SilenceTrial:
    return SilenceTrial(kind=kind, host=HOST, proxy=proxy, http_version=version, connections=list(connections))


def nothing(end: End, seconds: float) -> SilentConnection:
    return SilentConnection(Keeping.NOTHING, 0.0, end, seconds)


def cut(end: End = End.FIN, seconds: float = 30.0) -> list[SilentConnection]:
    return [nothing(End.KEPT, 10.0), *(nothing(end, seconds) for _ in range(3))]


def kept(keeping: Keeping, every: float = 10.0, seconds: float = 60.0) -> SilentConnection:
    return SilentConnection(keeping, every, End.KEPT, seconds)


def lost(keeping: Keeping, every: float = 10.0, seconds: float = 30.0, end: End = End.FIN) -> SilentConnection:
    return SilentConnection(keeping, every, end, seconds)


HEALTHY = trial(FarEndKind.HERE, nothing(End.KEPT, 90.0), kept(Keeping.PING))


def sentence(*trials: SilenceTrial, ping: float = 10.0) -> str:
    (finding,) = IdleVerdict(IdleReport(trials=list(trials)), ping).findings
    return f"{finding.text}. {finding.next}"


def test_nothing_is_wrong_where_nothing_is_cut() -> None:
    verdict = IdleVerdict(IdleReport(trials=[HEALTHY]), 10.0)
    assert (verdict.limit, verdict.findings) == (None, [])
    assert IdleVerdict(IdleReport(), 10.0).findings == []


def test_the_proxy_is_named_where_a_server_on_this_machine_is_cut_behind_it() -> None:
    told = sentence(trial(FarEndKind.HERE, *cut(), kept(Keeping.PING), lost(Keeping.TCP_KEEPALIVE)))
    assert told.startswith(
        f"the local proxy at {PROXY}, or what it forwards to, cuts idle connections after about 30 s"
    )
    assert "3 of 4 silent connections, by FIN" in told
    assert "HTTP/2 PING every 10 s keeps them" in told
    assert "TCP keepalive does not help: it tests only the hop to the proxy" in told
    assert "send PING every 10 s, as Unbroken does unless told otherwise" in told


def test_a_proxy_elsewhere_is_not_called_local() -> None:
    told = sentence(trial(FarEndKind.HERE, *cut(), proxy="http://10.0.0.1:3128"))
    assert told.startswith("the proxy at http://10.0.0.1:3128 (a corporate proxy, perhaps), or what it forwards to,")


@pytest.mark.parametrize(
    ("configured", "every", "said"),
    [
        (10.0, 10.0, "send PING every 10 s, as Unbroken does"),
        (5.0, 5.0, "send PING every 5 s, as you have set it"),
        (0.0, 10.0, "--ping 10 (Policy.ping_interval) comes in time"),
        (20.0, 1.0, "--ping 10 (Policy.ping_interval) comes in time"),
    ],
)
def test_the_option_is_named_that_keeps(configured: float, every: float, said: str) -> None:
    assert said in sentence(trial(FarEndKind.HERE, *cut(), kept(Keeping.PING, every)), ping=configured)


def test_a_short_timer_needs_a_shorter_interval() -> None:
    connections = [*cut(seconds=4.0)[1:], lost(Keeping.PING, 10.0, 4.0), kept(Keeping.PING, 1.0, 9.0)]
    assert "HTTP/2 PING every 1 s keeps them" in sentence(trial(FarEndKind.HERE, *connections))
    assert "--ping 1 (Policy.ping_interval) comes in time" in sentence(trial(FarEndKind.HERE, *connections))


def test_a_connection_that_was_not_watched_for_longer_proves_nothing() -> None:
    assert "nothing that was tried keeps them" in sentence(
        trial(FarEndKind.HERE, *cut(seconds=80.0), kept(Keeping.PING, 10.0, 60.0))
    )


def test_comments_help_where_ping_does_not() -> None:
    connections = [*cut(End.ANSWER_ENDED), lost(Keeping.PING, end=End.ANSWER_ENDED), kept(Keeping.COMMENTS, 1.0)]
    told = sentence(trial(FarEndKind.ECHO, *connections, proxy=""))
    assert f"something that reads HTTP on the way to {HOST}" in told
    assert "ends answers without a byte after about 30 s" in told
    assert "SSE comments from the server keep them; HTTP/2 PING does not" in told
    assert "--sse-ping-interval 10 (llama.cpp)" in told
    assert "unbroken relay --heartbeat 10 --early-heartbeat" in told


def test_over_http1_there_is_no_ping_to_blame() -> None:
    told = sentence(trial(FarEndKind.HERE, *cut(), kept(Keeping.COMMENTS, 1.0), version="HTTP/1.1"))
    assert "without HTTP/2 no PING can" in told


def test_the_proxy_is_not_blamed_for_what_happens_behind_it() -> None:
    told = sentence(HEALTHY, trial(FarEndKind.PROVIDER, *cut()))
    assert told.startswith(
        "not the proxy, through which a server on this machine stays connected: something on the way"
    )
    assert "it may be the far end's own" in told


def test_the_proxy_is_not_blamed_for_what_happens_without_it() -> None:
    told = sentence(trial(FarEndKind.PROVIDER, *cut()), trial(FarEndKind.DIRECT, *cut(seconds=31.0), proxy=""))
    assert told.startswith("not the proxy, as the same happens without it: something on the way")


def test_the_proxy_is_blamed_for_what_does_not_happen_without_it() -> None:
    told = sentence(trial(FarEndKind.PROVIDER, *cut()), trial(FarEndKind.DIRECT, nothing(End.KEPT, 90.0), proxy=""))
    assert told.startswith(f"the local proxy at {PROXY} cuts idle connections")


def test_nobody_is_named_where_there_is_no_comparison() -> None:
    told = sentence(trial(FarEndKind.PROVIDER, *cut()))
    assert told.startswith(f"the local proxy at {PROXY}, or something on the way to {HOST}")


@pytest.mark.parametrize("end", [End.GOAWAY, End.CLOSE_NOTIFY])
def test_a_far_end_with_a_timer_of_its_own_is_a_note(end: End) -> None:
    verdict = IdleVerdict(IdleReport(trials=[HEALTHY, trial(FarEndKind.PROVIDER, *cut(end))]), 10.0)
    (finding,) = verdict.findings
    assert finding.code in NOTES
    assert verdict.limit is None
    assert f"{HOST} itself, or what reads TLS in its name, ends connections without a request after about 30 s" in (
        finding.text
    )
    assert "proxy" not in finding.text


def test_a_server_of_ours_says_no_goodbye() -> None:
    told = sentence(trial(FarEndKind.ECHO, *cut(End.GOAWAY), proxy=""))
    assert "something that reads HTTP on the way" in told


def test_what_is_forgotten_without_a_word_has_two_bounds() -> None:
    connections = [nothing(End.KEPT, 20.0), nothing(End.SILENCE, 40.0), nothing(End.SILENCE, 60.0)]
    told = sentence(trial(FarEndKind.PROVIDER, *connections, proxy=""))
    assert "NAT or a firewall, most likely" in told
    assert "forgets idle connections after between 20 s and 40 s, without a word" in told
    only = [nothing(End.SILENCE, 5.0), nothing(End.SILENCE, 10.0)]
    assert "forgets idle connections within 5 s" in sentence(trial(FarEndKind.PROVIDER, *only, proxy=""))


def test_what_cuts_busy_connections_too_limits_their_whole_time() -> None:
    connections = [*cut(), lost(Keeping.PING, 1.0), lost(Keeping.COMMENTS, 1.0)]
    assert "nothing that was tried keeps them, so it limits their whole time" in sentence(
        trial(FarEndKind.HERE, *connections)
    )


def test_a_provider_is_not_pinged_often_so_that_is_told() -> None:
    told = sentence(trial(FarEndKind.PROVIDER, *cut(seconds=4.0)[1:], lost(Keeping.PING, seconds=4.0), proxy=""))
    assert "HTTP/2 PING every 10 s, and no more often on a provider, comes too late for it" in told
    assert "--ping 1 (Policy.ping_interval) comes in time; --echo" in told


def test_an_interrupted_test_says_what_is_known() -> None:
    connections = [*cut(seconds=4.0)[1:], SilentConnection(Keeping.PING, 1.0, End.OPEN, 5.0)]
    verdict = IdleVerdict(IdleReport(trials=[trial(FarEndKind.HERE, *connections)]), 10.0)
    assert verdict.limit == 4.0
    assert "cuts idle connections after about 4 s" in verdict.findings[0].text


def test_what_was_not_reached_counts_for_nothing() -> None:
    connections = [nothing(End.UNREACHED, 0.0), *cut()]
    assert "3 of 4 silent connections" in sentence(trial(FarEndKind.HERE, *connections))


def test_an_interception_that_the_test_found_is_told() -> None:
    (finding,) = IdleVerdict(IdleReport(intercepted_by="Example Inspection"), 10.0).findings
    assert finding.code == "tls_intercepted"
    assert "Example Inspection signed" in finding.text


def test_a_proxy_that_holds_answers_is_told() -> None:
    (finding,) = IdleVerdict(IdleReport(answers_held_by=PROXY), 10.0).findings
    assert finding.code == "answers_held"
    assert finding.text.startswith(f"the local proxy at {PROXY} hands on an answer once it is whole")
