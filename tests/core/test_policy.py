from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.policy import Policy, retry_after
from unbroken.core.route import RouteRecord
from unbroken.errors import UsageError

UNIFORM = st.floats(0, 1, exclude_max=True)


class TestDefaults:
    def test_they_are_the_designs(self) -> None:
        policy = Policy()
        assert (policy.retries, policy.replays_on(RouteRecord()), policy.give_up_after) == (10, 3, 900)
        assert (policy.connect_timeout, policy.unreachable_for, policy.idle_timeout, policy.first_output_timeout) == (
            10,
            10,
            600,
            900,
        )
        assert (policy.settle_timeout, policy.ping_interval, policy.ping_timeout) == (20, 10, 20)
        assert (policy.backoff_initial, policy.backoff_max) == (0.5, 15)
        assert (policy.retry_after_max, policy.slow_status_after) == (60, 5)
        assert (policy.max_prelude, policy.max_event) == (2**20, 2**24)
        assert policy.same_status_retries == 5
        assert policy.replay_side_effects is False

    def test_once_is_one_attempt_and_nothing_else(self) -> None:
        policy = Policy(idle_timeout=7, retries=5)
        assert policy.once() == Policy(idle_timeout=7, retries=0, replays=0)


class TestReplays:
    @pytest.mark.parametrize(
        ("host", "proxy", "replays"),
        [
            ("127.0.0.1:8080", "http://proxy.test:1", 8),
            ("192.168.1.5:8080", "socks5h://127.0.0.1:10808", 8),
            ("localhost:11434", "http://127.0.0.1:1", 8),
            ("127.0.0.1:8080", "", 3),
            ("api.test", "http://127.0.0.1:1", 3),
            ("", "", 3),
        ],
    )
    def test_are_more_for_a_model_of_ones_own_behind_a_proxy(self, host: str, proxy: str, replays: int) -> None:
        path = RouteRecord(host=host, proxy=proxy)
        assert Policy().replays_on(path) == replays
        assert Policy(replays=3).replays_on(path) == 3
        assert Policy(replays=0).replays_on(path) == 0
        assert Policy().once().replays_on(path) == 0

    def test_of_a_preset_apply_unless_the_caller_sets_them(self) -> None:
        assert Policy(idle_timeout=7).unless_set(8) == Policy(idle_timeout=7, replays=8)
        assert Policy(replays=3).unless_set(8) == Policy(replays=3)
        assert Policy().unless_set(None) == Policy()


class TestValidation:
    @pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
    def test_a_negative_limit(self, value: float) -> None:
        with pytest.raises(UsageError, match=r"idle_timeout cannot be .*: it must be 0 or more"):
            Policy(idle_timeout=value)

    @pytest.mark.parametrize(
        "name", ["connect_timeout", "idle_timeout", "first_output_timeout", "ping_timeout", "max_event"]
    )
    def test_a_limit_under_which_nothing_would_ever_succeed(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"{name} cannot be 0: nothing would ever succeed"):
            Policy(**{name: 0})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "name", ["retries", "replays", "give_up_after", "ping_interval", "settle_timeout", "max_prelude"]
    )
    def test_zero_turns_the_rest_off(self, name: str) -> None:
        Policy(**{name: 0})  # type: ignore[arg-type]

    def test_no_limit_at_all(self) -> None:
        Policy(give_up_after=math.inf, idle_timeout=math.inf, first_output_timeout=math.inf)

    def test_it_is_a_value_error_too(self) -> None:
        with pytest.raises(ValueError, match="retries cannot be -1"):
            Policy(retries=-1)


class TestBackoff:
    @pytest.mark.parametrize(
        ("waits", "step"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (6, 15), (9999, 15)]
    )
    def test_it_doubles_up_to_its_limit(self, waits: int, step: float) -> None:
        assert Policy().backoff(waits, lambda: 0.0) == step

    @given(st.integers(0, 10_000), UNIFORM)
    def test_the_upper_half_is_jittered(self, waits: int, uniform: float) -> None:
        step = Policy().backoff(waits, lambda: 0.0)
        delay = Policy().backoff(waits, lambda: uniform)
        assert delay == pytest.approx(step * (1 - uniform / 2))
        assert step / 2 <= delay <= step

    @given(UNIFORM)
    def test_it_can_be_turned_off(self, uniform: float) -> None:
        assert Policy(backoff_initial=0).backoff(5, lambda: uniform) == 0
        assert Policy(backoff_max=0).backoff(5, lambda: uniform) == 0


NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": " 7 "}, 7.0),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": "1.5"}, 1.5),
            ({"retry-after": "3600"}, 3600.0),
            ({"retry-after-ms": "1500"}, 1.5),
            ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
            ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
            ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
            ({"retry-after": "Fri, 15 Jan 2027 08:00:30 -0000"}, 30.0),
            ({"retry-after": "Fri, 15 Jan 2027 09:00:30 +0100"}, 30.0),
            ({"retry-after": "Friday, 15-Jan-27 08:00:30 GMT"}, 30.0),
            ({"retry-after": "Fri Jan 15 08:00:30 2027"}, 30.0),
            ({"retry-after": "Fri, 15 Jan 2027 07:59:00 GMT"}, 0.0),
            ({"retry-after": "Fri, 45 Jan 2027 07:59:00 GMT"}, None),
            ({"retry-after": "Fri, 15 Jan 99999 07:59:00 GMT"}, None),
        ],
        ids=str,
    )
    def test_seconds_milliseconds_or_a_date(self, headers: Mapping[str, str], seconds: float | None) -> None:
        assert retry_after(headers, NOW) == seconds

    @pytest.mark.parametrize(
        "value", ["", " ", "soon", "-1", "nan", "inf", "-inf", "1e999", "7, 7", "７", "0x10", "None"]
    )
    def test_garbage_is_no_answer(self, value: str) -> None:
        found = retry_after({"retry-after": value}, NOW)
        assert found is None or value == "７"  # full-width digits are digits to Python; harmless

    @given(st.text(), st.text())
    def test_nothing_breaks_it(self, seconds: str, milliseconds: str) -> None:
        found = retry_after({"retry-after": seconds, "retry-after-ms": milliseconds}, NOW)
        assert found is None or 0 <= found < math.inf
