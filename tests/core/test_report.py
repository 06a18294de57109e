from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unbroken.core.advice import SIMILAR_CUTS, idle_timer
from unbroken.core.failures import Phase
from unbroken.core.report import AttemptReport, Report, silent_cuts


def cut(silent: float, **fields: Any) -> AttemptReport:
    facts = {"number": 1, "phase": Phase.PRELUDE, "failure": "reset", "http_version": "HTTP/1.1", **fields}
    return AttemptReport(silent=silent, **facts)


def advice(*attempts: AttemptReport) -> str:
    return Report(attempts=attempts).advice


class TestAdvice:
    def test_three_similar_cuts_are_an_idle_timer(self) -> None:
        assert advice(cut(60.1), cut(60.3), cut(59.8)).startswith(
            "something on the way cuts idle connections after about 60 s"
        )

    def test_a_stranger_among_them_does_not_hide_it(self) -> None:
        assert "about 60 s" in advice(cut(60.1), cut(7), cut(60.3), cut(59.8))

    @pytest.mark.parametrize(
        "attempts",
        [
            [],
            [cut(60), cut(60)],
            [cut(10), cut(60), cut(300)],
            [cut(0.2), cut(0.1), cut(0.3)],
            [cut(60, phase=Phase.OUTPUT)] * 3,
            [cut(60, phase=Phase.SETTLED)] * 3,
            [cut(60, failure="busy")] * 3,
            [cut(60, failure="connection_refused", phase=Phase.CONNECT)] * 3,
            [cut(60, failure=None)] * 3,
        ],
        ids=["none", "two", "unlike", "not silent", "output", "settled", "statuses", "unreachable", "answered"],
    )
    def test_no_pattern_no_advice(self, attempts: list[AttemptReport]) -> None:
        assert advice(*attempts) == ""


class TestCounting:
    def test_lost_attempts(self) -> None:
        assert Report(retries=2, replays=1).lost == 3

    def test_what_may_have_been_billed(self) -> None:
        attempts = (cut(1, billed="unknown"), cut(1, billed="no"), cut(1, billed="unknown"), cut(1, billed="yes"))
        assert Report(attempts=attempts).possibly_billed == 2

    def test_what_attempts_were_lost_by(self) -> None:
        attempts = (
            cut(0, failure="connection_refused", phase=Phase.CONNECT),
            cut(0, failure="busy", phase=Phase.HEADERS),
            cut(0),
            cut(0, failure="truncated", phase=Phase.OUTPUT),
        )
        assert Report(attempts=attempts).losses == (
            "connection_refused@connect",
            "busy@headers",
            "reset@prelude",
            "truncated@output",
        )

    @pytest.mark.parametrize(
        "whole",
        [
            cut(0, failure=None, phase=Phase.COMPLETE),
            cut(0, failure=None, phase=Phase.OUTPUT),
            cut(0, failure="reset", phase=Phase.SETTLED),
            cut(0, failure="transient_error", phase=Phase.SETTLED),
            cut(0, failure="refused", phase=Phase.COMPLETE),
        ],
        ids=["answered", "running", "cut after settling", "an error that was handed on", "refused"],
    )
    def test_what_was_not_lost(self, whole: AttemptReport) -> None:
        assert Report(attempts=(cut(0), whole)).losses == ("reset@prelude",)

    def test_it_travels_as_json(self) -> None:
        report = Report(attempts=(cut(1.5, status=200, billed="unknown"),), replays=1, dialect="openai-chat")
        assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


class TestSilentCuts:
    @pytest.mark.parametrize("phase", [Phase.HEADERS, Phase.PRELUDE])
    @pytest.mark.parametrize("failure", ["reset", "closed", "unfinished", "truncated", "stream_reset"])
    def test_are_losses_in_silence_before_output(self, phase: Phase, failure: str) -> None:
        assert len(silent_cuts([cut(1.0, phase=phase, failure=failure)])) == 1

    @pytest.mark.parametrize("status", [504, 524])
    @pytest.mark.parametrize("phase", [Phase.HEADERS, Phase.COMPLETE], ids=["replayed", "handed on"])
    def test_so_are_gateways_that_gave_up(self, phase: Phase, status: int) -> None:
        [found] = silent_cuts([cut(60, failure="gateway_gave_up", phase=phase, status=status)])
        assert (found.silent, found.gateway_status) == (60, status)

    @pytest.mark.parametrize(
        "other",
        [
            cut(0.99),
            cut(60, failure=None),
            cut(60, failure="busy", phase=Phase.HEADERS),
            cut(60, failure="deadline"),
            cut(60, failure="idle_timeout"),
            cut(60, failure="dead_path"),
            cut(60, failure="stalled"),
            cut(60, failure="connect_timeout"),
            cut(60, failure="gateway_gave_up", phase=Phase.HEADERS, status=500),
            cut(0.9, failure="gateway_gave_up", phase=Phase.HEADERS, status=504),
            cut(60, failure="too_many_pings"),
            cut(60, failure="cancelled"),
            *(cut(60, phase=phase) for phase in (Phase.CONNECT, Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)),
        ],
    )
    def test_are_nothing_else(self, other: AttemptReport) -> None:
        assert not silent_cuts([other])


class TestIdleTimer:
    @pytest.mark.parametrize(
        ("silences", "timer"),
        [
            ([60, 60, 60], 60),
            ([60.1, 59.9, 60.4], 60.1),
            ([50, 60, 70], 60),
            ([1.5, 2.0, 2.9], 2.0),
            ([300, 60, 61, 59], 60),
            ([10, 60, 60, 60, 100, 200], 60),
            ([60] * 3 + [300] * 4, 300),
        ],
        ids=["alike", "about alike", "within a fifth", "within a second", "a stranger", "half", "the larger one"],
    )
    def test_is_where_cuts_cluster(self, silences: list[float], timer: float) -> None:
        assert idle_timer(silences) == timer
        assert idle_timer(silences[::-1]) == timer

    @pytest.mark.parametrize(
        "silences",
        [[], [60], [60] * (SIMILAR_CUTS - 1), [40, 60, 90], [60, 60, 60, 5, 10, 20, 40], [1, 2.5, 4]],
        ids=["none", "one", "too few", "unlike", "less than half", "over a second apart"],
    )
    def test_is_not_where_they_do_not(self, silences: list[float]) -> None:
        assert idle_timer(silences) is None
