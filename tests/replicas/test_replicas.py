"""A small one of the soak of three relays, and its judge; ``make replicas`` runs two thousand turns."""

from __future__ import annotations

import pytest

from real.parts import missing
from replicas.driver import Options, Soak, options_of
from replicas.judge import ERROR, LAST, Judge, Reading
from replicas.processes import is_possible
from unbroken.lab.record import RecordedRequest

PROMPT = "turn 7."


def event(number: int, text: str) -> bytes:
    return f'data: {{"id": "chatcmpl-lab-{number}", "delta": "{text}"}}\n\n'.encode()


FIRST, SECOND = ([event(number, text) for text in "abc"] for number in (1, 2))


def judged(body: bytes, *, ended: bool, prompt: str = PROMPT) -> str:
    requests = [RecordedRequest(number, 1, "1.1", "POST", "/", [], b'{"content": "turn 7."}', 0.0) for number in (1, 2)]
    for request, events in zip(requests, (FIRST, SECOND), strict=True):
        request._sent += b"".join(events) + LAST
    return Judge(requests).fault_of(Reading(prompt, body, ended))


def test_what_a_client_may_have() -> None:
    for events in (FIRST, SECOND):
        whole = b"".join(events) + LAST
        assert judged(whole, ended=True) == ""
        assert judged(whole[:50], ended=False) == judged(whole, ended=False) == ""
        assert judged(events[0] + ERROR + b': "stream_cut"}\n\n', ended=False) == ""
    assert judged(b"", ended=False) == ""


def test_what_none_may_have() -> None:
    whole = b"".join(FIRST) + LAST
    for body in (
        FIRST[0] + whole,
        FIRST[0] + FIRST[2] + LAST,
        whole.replace(b'"b"', b'"x"'),
        FIRST[0] + b"".join(SECOND[1:]) + LAST,
    ):
        assert judged(body, ended=True)
        assert judged(body, ended=False)
    assert judged(b"".join(FIRST), ended=True)
    assert judged(b"", ended=True)
    assert judged(b"event: foreign\n\n", ended=False)
    assert judged(whole, ended=True, prompt="turn 8.")


def test_the_usual_size() -> None:
    usual = options_of([])
    assert (usual.turns, usual.at_once, usual.outages, usual.readers) == (2000, 200, 2, 5000)
    assert options_of(["--turns", "5", "--keep", "1.5"]) == Options(turns=5, keep=1.5)


@pytest.mark.slow
def test_three_relays_with_one_store_lose_nothing() -> None:
    if not is_possible():
        missing("redis-server is missing, or this is not Linux")
    options = Options(turns=150, at_once=30, kills=3, outages=2, readers=150, keep=5.0, lease=5.0)
    result = Soak(options).run()
    assert result.violations == []
    assert result.counts["whole"] + result.counts["error"] == 150
    assert result.counts["whole"] > 75
    assert (result.counts["relays killed"], result.counts["store stopped"]) == (3, 2)
    assert 0 < result.counts["most connections to the store"] <= 4
