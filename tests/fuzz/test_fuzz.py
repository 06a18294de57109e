"""Garbage of every kind: a short run in the slow lane, ``make fuzz`` for a long one; what it has found stays found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from core.corpus import CORPORA
from fuzz.targets import NAMES, RELAY, RELAY_GARBAGE, SIZES, TARGETS, RelayUnderFire, recorded
from unbroken.core.attempt import Attempt
from unbroken.wire.http1 import Http1

FOUND = sorted((CORPORA / "fuzz").glob("*/*.bin"))
PIECES = ([1], [7, 300], [65536])
EXAMPLES, OVER_SOCKETS = 100, 60


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayUnderFire]:
    with ExitStack() as stack:
        yield RelayUnderFire(stack)


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}/{path.stem}" for path in FOUND])
def test_what_was_found_stays_found(path: Path, request: pytest.FixtureRequest) -> None:
    name = path.parent.name
    feed: Callable[..., None] = request.getfixturevalue("relay").feed if name == RELAY else TARGETS[name].feed
    for sizes in PIECES:
        feed(path.read_bytes(), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_garbage(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(target.garbage, SIZES)
    def run(data: bytes, sizes: list[int]) -> None:
        target.feed(data, sizes)

    run()


@pytest.mark.slow
def test_garbage_for_the_relay(relay: RelayUnderFire) -> None:
    @settings(max_examples=OVER_SOCKETS, suppress_health_check=list(HealthCheck))
    @given(RELAY_GARBAGE, SIZES)
    def run(data: bytes, sizes: list[int]) -> None:
        relay.feed(data, sizes)

    run()


# What a fault looks like that is found


def test_an_exception_of_another_kind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http1, "take", lambda http: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TARGETS["http1"].feed(b"HTTP/1.1 200 OK\r\n\r\n", [4096])


def test_a_byte_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lose = Attempt.data
    monkeypatch.setattr(Attempt, "data", lambda attempt, chunk: lose(attempt, chunk)[1:])
    stream = next(body for body in recorded("openai-chat") if b"[DONE]" in body)
    with pytest.raises(AssertionError):
        TARGETS["turn-openai-chat"].feed(stream, [4096])


def test_garbage_is_of_every_kind() -> None:
    assert set(TARGETS) >= {"sse", "http1", "http2", "proxies", "codings", "asking", "guarding", *NAMES}
    assert all(recorded(name) for name in NAMES)
