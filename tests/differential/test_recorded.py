"""The real SDKs read each recorded stream plain, through the transport and through the relay: whole, and cut anywhere.

See :mod:`differential.judge` for what is right, and :mod:`differential.exceptions` for where it is not.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from core.corpus import Recording
from differential.bench import Bench
from differential.exceptions import reason_for
from differential.judge import Ending, complaints, ending_of
from differential.recorded import cuts, every_recording, whole
from differential.streams import Case, Found, Read

Cases = list[tuple[Case, Found, Read]]
"""What is asked, what was read, and what plain reads of the second answer."""

EVERY = every_recording()
SAMPLE, FEW = EVERY[::3], EVERY[::60]
"""What is in the fast lane: these whole, and those cut."""


def read(bench: Bench, recordings: Iterable[tuple[str, Recording]], *, with_cuts: bool) -> Cases:
    wholes = [whole(*recording) for recording in recordings]
    read_whole = dict(zip([case.name for case in wholes], bench.ask(wholes), strict=True))
    found = [(case, read_whole[case.name], read_whole[case.name].plain) for case in wholes]
    if with_cuts:
        pieces = [
            (case, piece) for case, (name, item) in zip(wholes, recordings, strict=True) for piece in cuts(name, item)
        ]
        outcomes = bench.ask([piece for _, piece in pieces])
        plain = [read_whole[case.name].plain for case, _ in pieces]
        found += zip([piece for _, piece in pieces], outcomes, plain, strict=True)
    return found


def wrong(cases: Cases) -> list[str]:
    return [
        f"{case.name}: {complaint}; plain read {len(found.plain.objects)} objects, {found.plain.error}"
        for case, found, again in cases
        for complaint in complaints(case, found, again)
        if not reason_for(case, complaint)
    ]


@pytest.mark.xdist_group("bench")
def test_some_recordings_and_the_cuts_of_a_few(bench: Bench) -> None:
    cases = read(bench, SAMPLE, with_cuts=False) + read(bench, FEW, with_cuts=True)
    assert wrong(cases) == []


@pytest.mark.slow
def test_each_recording_cut_at_each_event(bench: Bench) -> None:
    cases = read(bench, EVERY, with_cuts=True)
    assert wrong(cases) == []
    endings = [ending_of(case, found.plain) for case, found, _ in cases if not found.plain.is_loud]
    assert endings.count(Ending.UNTOLD) < len(endings) / 10, "the judge can tell nothing of too many"
    assert endings.count(Ending.CUT) > 500
    assert endings.count(Ending.WHOLE) > 300
