"""How long nothing came, and what is done about it: neither PING nor the frame that ends it breaks a silence."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.faces import DRIVERS, POLICY, Ask, Face
from conformance.fixtures import Setting
from unbroken.core import advice, report, route
from unbroken.lab import CuttingProxy, Fault, ScriptedAnswer, Upstream

SILENCE = 0.35

BUSY = dataclasses.replace(POLICY, ping_interval=0.06, ping_timeout=5, replays=0)

ENDINGS = [
    ("http1", Fault("fin", "after_role")),
    ("http1", Fault("rst", "after_role")),
    ("http1", Fault("clean_end", "after_role")),
    ("http1", Fault("fin", "before_headers")),
    ("http1-tls", Fault("fin", "after_role", close_notify=True)),
    ("http2", Fault("fin", "after_role", close_notify=True)),
    ("http2", Fault("rst", "after_role")),
    ("http2", Fault("clean_end", "after_role")),
    ("http2", Fault("rst_stream", "after_role")),
    ("http2", Fault("rst_stream", "before_headers")),
    ("http2", Fault("goaway", "after_role", then="close")),
    ("http2", Fault("goaway", "before_headers", then="close")),
]


@pytest.fixture(params=DRIVERS, ids=str)
def driver(request: pytest.FixtureRequest) -> Face:
    chosen: Face = request.param
    return chosen


@pytest.mark.parametrize(("transport", "fault"), ENDINGS, ids=lambda one: getattr(one, "kind", one))
def test_what_ends_a_silence_is_no_part_of_the_response(driver: Face, settings, transport: str, fault: Fault) -> None:
    setting: Setting = settings(transport)
    upstream = setting.serve(dataclasses.replace(fault, seconds=SILENCE))
    [lost] = driver.run(setting.ask(upstream, policy=BUSY)).report.attempts
    assert lost.failure is not None
    assert lost.silent > SILENCE / 2
    assert lost.silent <= lost.elapsed
    if transport == "http2":
        assert lost.http_version == lost.route.http_version == "HTTP/2"
        assert lost.route.pings_answered > 1
        assert lost.route.kept_busy


def test_pings_that_were_not_sent_are_not_told(driver: Face, settings) -> None:
    setting: Setting = settings("http2")
    upstream = setting.serve(Fault("rst_stream", "after_role", seconds=SILENCE))
    [lost] = driver.run(setting.ask(upstream, policy=dataclasses.replace(POLICY, replays=0))).report.attempts
    assert (lost.route.pings_sent, lost.route.kept_busy) == (0, False)
    assert lost.route.ping == POLICY.ping_interval > SILENCE


@pytest.mark.parametrize("transport", ["http1", "http2"])
def test_a_gateway_that_gives_up_is_silent_until_its_status(driver: Face, settings, transport: str) -> None:
    setting: Setting = settings(transport)
    upstream = setting.serve(*[Fault("status", "before_headers", status=504, seconds=SILENCE)] * 2)
    outcome = driver.run(setting.ask(upstream, policy=dataclasses.replace(BUSY, replays=1)))
    assert outcome.head is not None
    assert outcome.head.status == 504
    assert [attempt.failure for attempt in outcome.report.attempts] == ["gateway_gave_up"] * 2
    assert all(attempt.silent > SILENCE / 2 for attempt in outcome.report.attempts)


class TestAnIdleTimer:
    """Seconds are tenths here: a timer of 0.45 s stands for one of 4.5 s."""

    TIMER = 0.45
    THINK = ScriptedAnswer(think=1.0, think_at="after_role")

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (route, advice):
            monkeypatch.setattr(module, "MIN_INTERVAL", 0.1)
        monkeypatch.setattr(report, "LEAST_SILENCE", 0.1)

    def ask(self, setting: Setting, upstream: Upstream, proxy: CuttingProxy, **policy: float) -> Ask:
        """Ask through a path that cuts what is silent."""
        ask = setting.ask(upstream, policy=dataclasses.replace(POLICY, **policy))
        return dataclasses.replace(ask, url=upstream.url.replace(str(upstream.port), str(proxy.port)))

    def through(self, upstream: Upstream) -> CuttingProxy:
        return CuttingProxy(idle=self.TIMER, target=("127.0.0.1", upstream.port))

    def test_is_survived_by_the_second_attempt_with_the_usual_settings(self, driver: Face, settings) -> None:
        setting: Setting = settings("http2")
        upstream = setting.serve(answer=self.THINK)
        with self.through(upstream) as proxy:
            outcome = driver.run(self.ask(setting, upstream, proxy, ping_interval=10.0, ping_timeout=20.0))
        assert outcome.error is None
        lost, answered = outcome.report.attempts
        assert lost.lowered_ping == pytest.approx(self.TIMER / 3, rel=0.2)
        assert (answered.route.ping, answered.route.ping_learned) == (lost.lowered_ping, True)
        assert answered.route.pings_answered >= 3
        [told] = outcome.told
        assert told.lost == lost
        assert told.advice.startswith("cut after 0.")
        assert told.advice.endswith(": pinging every 0.2 s from now on")

    def test_is_no_reason_to_turn_ping_on(self, driver: Face, settings) -> None:
        setting: Setting = settings("http2")
        upstream = setting.serve(answer=self.THINK)
        with self.through(upstream) as proxy:
            outcome = driver.run(self.ask(setting, upstream, proxy, ping_interval=0.0, replays=2))
        assert upstream.pings == 0
        assert [attempt.lowered_ping for attempt in outcome.report.attempts] == [None] * 3
        assert "turn PING on (--ping 1" in str(outcome.error)
