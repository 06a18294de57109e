"""One test for each sentence of advice, and what no sentence may say. docs/advice.md names these tests."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from unbroken.core.advice import LATEST, Advice, SilentCut, advice
from unbroken.core.failures import OWN_LIMITS, Failure, Phase
from unbroken.core.report import AttemptReport, Report, lesson
from unbroken.core.route import RouteRecord

PROXY = "http://127.0.0.1:10808"
HTTP2 = RouteRecord(host="api.test", secure=True, http_version="HTTP/2", ping=10)
PINGED = RouteRecord(host="api.test", secure=True, http_version="HTTP/2", ping=10, kept_busy=True)
HTTP1 = RouteRecord(host="api.test", secure=True, http_version="HTTP/1.1")


def cut(silent: float, path: RouteRecord = HTTP2, **fields: Any) -> AttemptReport:
    facts = {"number": 1, "phase": Phase.PRELUDE, "failure": "reset", "http_version": path.http_version, **fields}
    return AttemptReport(silent=silent, route=path, **facts)


def told(*attempts: AttemptReport) -> str:
    return Report(attempts=attempts).advice


def path(**fields: Any) -> RouteRecord:
    return RouteRecord(**{"host": "api.test", "secure": True, "http_version": "HTTP/2", "ping": 10.0, **fields})


def gave_up(silent: float, path: RouteRecord, status: int = 504) -> AttemptReport:
    return cut(silent, path, failure="gateway_gave_up", phase=Phase.HEADERS, status=status)


class TestEachSentence:
    def test_gateway(self) -> None:
        found = told(*[gave_up(60, HTTP2)] * 3)
        assert found.startswith("a gateway answers HTTP 504 after about 60 s without a word from its server")
        assert found.endswith("have that limit raised by whoever runs it")
        assert "HTTP 524 after about 100 s" in told(*[gave_up(100, HTTP1, 524)] * 3)

    def test_gateway_local(self) -> None:
        found = told(*[gave_up(3, path(host="10.0.0.7:8080", http_version="HTTP/1.1", ping=0))] * 3)
        assert "after about 3 s without a word from its server" in found
        assert "nginx: proxy_read_timeout" in found
        assert "`unbroken relay --heartbeat 1 --early-heartbeat` between the two" in found

    @pytest.mark.parametrize("failure", ["stream_reset", "unfinished", "truncated"])
    @pytest.mark.parametrize("ping", [0.0, 1.0, 10.0])
    def test_answer_ended(self, failure: str, ping: float) -> None:
        found = told(*[cut(3, path(ping=ping), failure=failure)] * 3)
        assert "that reads HTTP ends answers after about 3 s without a byte of them, which no PING can prevent" in found
        assert "--ping" not in found

    def test_answer_ended_local(self) -> None:
        found = told(*[cut(3, path(host="127.0.0.1:8443"), failure="unfinished")] * 3)
        assert "ends answers after about 3 s" in found
        assert "start the server with --sse-ping-interval 1 (llama.cpp)" in found

    def test_over_http1_an_end_of_the_answer_is_one_of_the_connection(self) -> None:
        assert "over HTTP/1.1 no PING can prevent it" in told(*[cut(60, HTTP1, failure="unfinished")] * 3)

    def test_ping_in_vain(self) -> None:
        found = told(cut(60), cut(61), cut(60.4, PINGED))
        assert "after about 60 s, although PING was answered on them" in found
        assert "--ping" not in found

    def test_ping_in_vain_local(self) -> None:
        found = told(*[cut(3, path(host="127.0.0.1:8443", kept_busy=True))] * 3)
        assert "although PING was answered" in found
        assert "start the server with --sse-ping-interval 1 (llama.cpp)" in found

    def test_ping_refused(self) -> None:
        found = told(*[cut(60, path(ping=0, ping_refused=True))] * 3)
        assert "the server has complained of PING" in found
        assert "--ping" not in found

    def test_ping_too_slow(self) -> None:
        for ping in (0.0, 1.0):
            assert "sooner than PING can keep them busy" in told(*[cut(1.1, path(ping=ping))] * 3)

    def test_ping_lowered(self) -> None:
        found = told(*[cut(3, path(), lowered_ping=1.0)] * 3)
        assert found.endswith("after about 3 s: since then PING is sent every 1 s, for an hour")

    @pytest.mark.parametrize(("silent", "interval"), [(3, 1), (1.5, 1), (9, 3), (60, 10)])
    def test_ping_off(self, silent: float, interval: int) -> None:
        assert f"turn PING on (--ping {interval}, Policy.ping_interval)" in told(*[cut(silent, path(ping=0.0))] * 3)

    def test_ping_seldom(self) -> None:
        found = told(*[cut(3, path(ping=5.0, ping_learned=True))] * 3)
        assert "before PING is sent, every 5 s: --ping 1 (Policy.ping_interval) keeps them busy" in found

    def test_ping_unanswered(self) -> None:
        assert "PING was not answered on them" in told(*[cut(15, path(ping=5.0, pings_sent=1))] * 3)

    @pytest.mark.parametrize("version", ["", "HTTP/1.1", "HTTP/2"])
    def test_own_transport(self, version: str) -> None:
        given = RouteRecord(sends_ping=False)
        assert "a transport that is handed in (inner=) sends no PING" in told(
            *[cut(60, given, http_version=version)] * 3
        )

    def test_http2_off(self) -> None:
        found = told(*[cut(60, path(http_version="HTTP/1.1", offers_http2=False, ping=0.0))] * 3)
        assert "let HTTP/2 be offered (http2=True)" in found

    @pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:11434", "192.168.1.5:8080", "[::1]:8080"])
    def test_local_proxied(self, host: str) -> None:
        local = RouteRecord(host=host, proxy=PROXY, http_version="HTTP/1.1", offers_http2=False)
        found = told(*[cut(3, local)] * 3)
        assert f"ask {host} without the proxy (--no-proxy), start the server with --sse-ping-interval 1" in found
        assert found.endswith("put `unbroken relay --heartbeat 1 --early-heartbeat` on its side of the proxy")

    def test_local(self) -> None:
        found = told(*[cut(60, RouteRecord(host="10.0.0.7:8080", http_version="HTTP/1.1", offers_http2=False))] * 3)
        assert "start the server with --sse-ping-interval 15 (llama.cpp)" in found
        assert "proxy" not in found

    def test_http1_proxied(self) -> None:
        found = told(*[cut(60, path(http_version="HTTP/1.1", proxy=PROXY, ping=0.0))] * 3)
        assert "over HTTP/1.1 no PING can prevent it: raise that limit (v2ray: policy.levels.0.connIdle)" in found
        assert "--no-proxy" in found

    def test_http1(self) -> None:
        found = told(*[cut(60, HTTP1)] * 3)
        assert "over HTTP/1.1 no PING can prevent it: have that limit raised, or ask an https endpoint" in found

    def test_lesson(self) -> None:
        assert lesson(cut(3.04, lowered_ping=1.013)) == "cut after 3 s: pinging every 1 s from now on"
        assert lesson(cut(12, lowered_ping=4)) == "cut after 12 s: pinging every 4 s from now on"
        assert lesson(cut(60)) == ""


def all_paths() -> list[RouteRecord]:
    """Every combination of what a path can be."""
    return [
        RouteRecord(
            host=host, proxy=proxy, secure=secure, offers_http2=secure and offers, sends_ping=sends, ping=ping,
            ping_learned=learned, ping_refused=refused, kept_busy=busy, http_version=version,
        )
        for host, proxy, secure, offers, sends, learned, refused, busy, (version, ping) in itertools.product(
            ["api.test", "127.0.0.1:8080"], ["", PROXY], *[[True, False]] * 6,
            [("HTTP/1.1", 0.0), ("HTTP/2", 0.0), ("HTTP/2", 1.0), ("HTTP/2", 10.0)],
        )
    ]  # fmt: skip


class TestInAnyCombination:
    @pytest.mark.parametrize("silent", [1.1, 1.6, 3.0, 15.0, 60.0])
    @pytest.mark.parametrize("gateway", [False, True], ids=["cut", "504"])
    def test_no_sentence_is_wrong(self, silent: float, gateway: bool) -> None:
        for one in all_paths():
            found = told(*[gave_up(silent, one) if gateway else cut(silent, one)] * 3)
            assert found
            if not one.proxy:
                assert not re.search(r"v2ray|the proxy|--no-proxy", found), one
            for interval in re.findall(r"--ping (\d+)", found):
                assert not one.ping or int(interval) < one.ping, one
                assert not one.ping_refused, one
                assert one.http_version == "HTTP/2", one
            assert "http2=True" not in found or not one.offers_http2, one
            assert "although PING was answered" not in found or one.kept_busy, one
            assert "over HTTP/1.1" not in found or one.http_version == "HTTP/1.1", one
            assert "--sse-ping-interval" not in found or one.is_local, one

    def test_a_limit_of_our_own_is_no_evidence(self) -> None:
        for failure in (*OWN_LIMITS, Failure.TOO_MANY_PINGS, Failure.DEADLINE, Failure.CANCELLED, Failure.BUSY):
            assert told(*[cut(60, failure=failure.code)] * 4) == "", failure

    def test_every_sentence_has_a_test(self) -> None:
        tests = {name.removeprefix("test_") for name in vars(TestEachSentence) if name.startswith("test_")}
        assert tests >= {one.name.lower() for one in Advice} | {"lesson"}


class TestPatterns:
    def test_there_is_none_without_a_cluster(self) -> None:
        assert advice([]) == ""
        assert told(cut(60), cut(60.2)) == ""
        assert told(*map(cut, (5, 20, 60, 61, 62, 200, 400))) == ""

    def test_names_the_silence(self) -> None:
        assert "about 60 s" in told(*map(cut, (60, 60.4, 61, 12)))
        assert "about 1.5 s" in told(*map(cut, (1.5, 1.52, 1.48)))

    def test_a_ping_elsewhere_says_nothing_of_the_cluster(self) -> None:
        found = told(*[cut(60, path(ping=0.0))] * 3, cut(300, PINGED))
        assert "turn PING on" in found

    def test_nor_does_another_version_of_http(self) -> None:
        assert "over HTTP/1.1 no PING can prevent it" in told(*[cut(60, HTTP1)] * 3, cut(300, HTTP2))

    def test_yesterday_does_not_count(self) -> None:
        old = [SilentCut(at=0.0, silent=60.0)] * 10 * LATEST
        new = [SilentCut(at=1.0, silent=5.0 * 1.5**n) for n in range(20)] * (LATEST // 20)
        assert "after about 60 s" in advice(old)
        assert "60 s" not in advice([*old, *new])

    def test_each_path_has_its_own(self) -> None:
        other = path(host="other.test:8443", proxy=PROXY, http_version="HTTP/1.1", ping=0.0)
        found = told(*[cut(60, path(ping=0.0))] * 3, *[cut(20, other)] * 3).split(" · ")
        assert found[0].startswith(
            "api.test: something on the way cuts idle connections after about 60 s: turn PING on"
        )
        assert found[1].startswith(f"other.test:8443 through {PROXY}: something on the way cuts idle connections after")

    def test_cuts_of_several_paths_make_no_pattern(self) -> None:
        assert told(cut(60, path(host="a.test")), cut(60, path(host="b.test")), cut(60, path(host="c.test"))) == ""
