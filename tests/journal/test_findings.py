"""What past turns tell: how often, after which silence, by which path, since when, and what changed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

import pytest

from journal.made import HOST, NOW, PROXY, entry
from unbroken.core.advice import Advice, parted
from unbroken.core.failures import Failure, Phase
from unbroken.core.finding import Finding
from unbroken.journal.entry import DAY, AnsweredCount, JournalEntry
from unbroken.journal.findings import PastTurns, UsedPath

HOUR = 3600.0
TODAY = int(NOW) // DAY
"""NOW is Wednesday, 18 November 2026, 11:06:40 in UTC."""


def found(entries: Iterable[JournalEntry], answered: Sequence[AnsweredCount] = (), now: float = NOW) -> list[Finding]:
    return PastTurns(entries, answered, now, datetime.UTC).findings


def cuts(*days_ago: float, silent: float = 60.0, **more: object) -> list[JournalEntry]:
    return [entry(NOW - days * DAY, silent=silent + i / 10, **more) for i, days in enumerate(days_ago)]  # type: ignore[arg-type]


def answered(days_ago: int, number: int, proxy: str = PROXY, http_version: str = "HTTP/1.1") -> AnsweredCount:
    return AnsweredCount(TODAY - days_ago, HOST, proxy, http_version, number)


def test_nothing_lost_is_nothing_found() -> None:
    assert found([], [answered(0, 5)]) == []


def test_the_issues_sentence() -> None:
    """Often, at which silence, by which path, since when, what changed: and what to do about it."""
    lost = cuts(1, 1, 0.5, 0.1)
    (finding,) = found(lost, [answered(5, 20, ""), answered(3, 11, "")])
    assert finding == Finding(
        "past_idle_cuts",
        f"4 attempts over HTTP/1.1 through {PROXY} to {HOST} were cut after about 60 s of silence since yesterday, the"
        " last today at 08:42; before, over no proxy, none of 31 was: something on the way cuts idle connections after"
        " about 60 s, and over HTTP/1.1 no PING can prevent it",
        "raise that limit (v2ray: policy.levels.0.connIdle), go without the proxy (--no-proxy), or ask an https"
        " endpoint that speaks HTTP/2",
    )


@pytest.mark.parametrize("number", [1, 2])
def test_too_few_are_no_pattern(number: int) -> None:
    assert found(cuts(*range(number))) == []


def test_scattered_silences_are_losses_and_no_pattern() -> None:
    (finding,) = found([entry(NOW, silent=silent) for silent in (5.0, 20.0, 60.0, 200.0)])
    assert (finding.code, finding.text) == (
        "past_losses",
        f"4 attempts through {PROXY} to {HOST} were lost today at 11:06: connection closed by the other side (4)",
    )


# Since when


@pytest.mark.parametrize(
    ("days_ago", "told"),
    [
        (0.25, "today at 05:06"),
        (1, "yesterday"),
        (2, "Monday"),
        (6, "Thursday"),
        (7, "11 November"),
        (60, "19 September"),
        (365, "18 November 2025"),
    ],
)
def test_days_are_told_as_a_person_would(days_ago: float, told: str) -> None:
    (finding,) = found(cuts(days_ago, days_ago, 0.0))
    assert f"since {told}, the last today at 11:06" in finding.text


def test_a_day_is_that_of_the_zone() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=13))
    (finding,) = PastTurns(cuts(0.25, 0.25, 0.0), [], NOW, zone).findings
    assert "since yesterday, the last today at 00:06" in finding.text


def test_it_is_the_latest_run_that_is_told() -> None:
    (finding,) = found(cuts(60, 59, 2, 1, 0))
    assert finding.text.startswith("3 attempts")
    assert "since Monday" in finding.text
    assert "before" not in finding.text, "it was the same before"


def test_what_is_over_is_told_as_such_and_needs_no_step() -> None:
    (finding,) = found(cuts(20, 19, 18), [answered(19, 4), answered(10, 30), answered(1, 12)])
    assert (finding.code, finding.next) == ("past_idle_cuts_ended", "")
    assert finding.text.endswith("since 29 October, the last 31 October; none of 42 since then")


def test_what_is_over_says_nothing_of_now() -> None:
    past = PastTurns(cuts(20, 19, 18), [], NOW)
    assert (past.summary.idle_limit, past.summary.path) == (None, None)


# What changed


def test_a_timer_that_has_changed() -> None:
    lost = [*cuts(9, 8, 7, silent=300.0), *cuts(2, 1, 0)]
    (finding, *_) = found(lost)
    assert "after about 60 s of silence since Monday" in finding.text
    assert "; before, after about 300 s: " in finding.text


def test_the_same_path_was_well_before() -> None:
    (finding,) = found(cuts(2, 1, 0), [answered(9, 20), answered(3, 5), answered(0, 7)])
    assert "; before, none of 25 was: " in finding.text


def test_http2_was_taken_away() -> None:
    (finding,) = found(cuts(2, 1, 0), [answered(9, 20, http_version="HTTP/2")])
    assert "; before, over HTTP/2, none of 20 was: " in finding.text


def test_another_path_is_well_meanwhile() -> None:
    (finding,) = found(cuts(2, 1, 0), [answered(0, 7, "socks5h://127.0.0.1:1080")])
    assert "; through socks5h://127.0.0.1:1080, none of 7 was: " in finding.text


def test_another_path_that_is_cut_too_is_no_way_out() -> None:
    lost = [*cuts(2, 1, 0), *cuts(2.5, 1.5, proxy="")]
    assert "over no proxy" not in found(lost, [answered(0, 7, "")])[0].text


def test_answers_of_another_server_say_nothing() -> None:
    (finding,) = found(cuts(2, 1, 0), [AnsweredCount(TODAY - 9, "other", PROXY, "HTTP/1.1", 9)])
    assert "none of" not in finding.text


# What helps


def test_an_interval_that_was_lowered_is_advised_for_good() -> None:
    """A process that has learned it has ended; the next one begins with the usual interval."""
    (finding,) = found(cuts(2, 1, 0, silent=12.0, http_version="HTTP/2", lowered_ping=4.0))
    assert finding.next == "--ping 4 (Policy.ping_interval) keeps them busy"


def test_a_gateway_that_gave_up_has_a_code_of_its_own() -> None:
    lost = [entry(NOW - i, Failure.GATEWAY_GAVE_UP, Phase.HEADERS, status=504) for i in range(3)]
    (finding,) = found(lost)
    assert finding.code == "past_gateway_timeouts"
    assert "were answered HTTP 504 after about 60 s of silence" in finding.text
    assert finding.next == "have that limit raised by whoever runs it"


@pytest.mark.parametrize("advice", Advice, ids=lambda advice: advice.name)
def test_every_advice_has_an_observation_and_a_step(advice: Advice) -> None:
    observed, step = parted(advice.value)
    assert f"{observed}: {step}" == advice.value
    assert "{timer}" in observed
    assert step


# Several paths, and other losses


def test_each_path_is_looked_at_alone() -> None:
    lost = [*cuts(3, 2, 1), *cuts(1, 0.5, 0, silent=20.0, proxy="")]
    assert [finding.text.partition(" were")[0] for finding in found(lost)] == [
        f"3 attempts over HTTP/1.1 to {HOST}, over no proxy,",
        f"3 attempts over HTTP/1.1 through {PROXY} to {HOST}",
    ]


def test_other_losses_are_counted_by_kind() -> None:
    lost = [
        *cuts(2, 1, 0),
        *[entry(NOW - i, Failure.PROXY_UNREACHABLE, Phase.CONNECT, 0.0) for i in range(3)],
        entry(NOW, Failure.RESET, Phase.OUTPUT),
    ]
    pattern, others = found(lost)
    assert pattern.code == "past_idle_cuts"
    assert others.code == "past_losses"
    assert others.text.startswith(f"4 other attempts through {PROXY} to {HOST} were lost today at 11:06")
    assert others.text.endswith(": proxy unreachable (3), connection reset, after output (1)")
    assert others.next == "unbroken doctor says how that path is now"


@pytest.mark.parametrize(
    ("failure", "phase", "step"),
    [
        (Failure.RESET, Phase.OUTPUT, "--hold answer"),
        (Failure.BUSY, Phase.HEADERS, "the server's own"),
        (Failure.RESET, Phase.HEADERS, ""),
    ],
)
def test_a_loss_has_its_step(failure: Failure, phase: Phase, step: str) -> None:
    (finding,) = found([entry(NOW, failure, phase, silent) for silent in (0.0, 0.1, 0.2)])
    assert step in finding.next
    assert bool(step) == bool(finding.next)


def test_the_current_limit_and_its_path_are_told() -> None:
    past = PastTurns([*cuts(3, 2, 1), *cuts(1, 0.5, 0, silent=20.0, proxy="")], [], NOW)
    assert past.summary.idle_limit == 20.1
    assert past.summary.path == UsedPath(HOST, "", "HTTP/1.1")
    assert past.summary.findings == past.findings


def test_codes_are_stable() -> None:
    """Programs go by them; docs/doctor.md lists them."""
    everything = [
        *found([*cuts(2, 1, 0), *[entry(NOW, Failure.BUSY, Phase.HEADERS, 0.0)] * 3]),
        *found(cuts(20, 19, 18)),
        *found([entry(NOW, Failure.GATEWAY_GAVE_UP, Phase.HEADERS, status=504)] * 3),
    ]
    codes = {"past_idle_cuts", "past_losses", "past_idle_cuts_ended", "past_gateway_timeouts"}
    assert {finding.code for finding in everything} == codes
