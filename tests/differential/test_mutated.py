"""The same of recorded streams that were changed at random."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from differential.bench import Bench
from differential.exceptions import reason_for
from differential.judge import complaints
from differential.mutations import mutated
from differential.recorded import every_recording, whole
from differential.streams import Case, Read

FAST, SLOW = 50, 2000
QUICK = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
    phases=[Phase.generate, Phase.shrink],
)


def check(bench: Bench, case: Case) -> None:
    again = read_again(bench, case)
    [found] = bench.ask([case])
    wrong = [item for item in complaints(case, found, again) if not reason_for(case, item)]
    assert not wrong, f"{case.name} {dict(case.stream.headers)}: {wrong}; plain read {found.plain}"


def read_again(bench: Bench, case: Case) -> Read:
    """What plain reads of the second answer, which is the recording itself."""
    return _read_recording(bench, case.name.partition(":")[0], case.dialect)


@functools.cache
def _read_recording(bench: Bench, name: str, dialect: str) -> Read:
    [recording] = [item for kind, item in every_recording() if f"{kind} {item}" == name]
    return bench.ask([whole(dialect, recording)])[0].plain


@pytest.mark.xdist_group("bench")
@settings(QUICK, max_examples=FAST)
@given(mutated())
def test_a_changed_stream(bench: Bench, case: Case) -> None:
    check(bench, case)


@pytest.mark.slow
@settings(QUICK, max_examples=SLOW)
@given(mutated())
def test_many_changed_streams(bench: Bench, case: Case) -> None:
    check(bench, case)
