"""What is said of a retry or replay: one line for a person, a log record for whoever collects them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from unbroken.core.actions import RetryEvent
from unbroken.core.failures import Failure, Phase
from unbroken.core.report import AttemptReport
from unbroken.drivers.notices import describe, notify


def again(
    failure: Failure,
    phase: Phase,
    *,
    action: Any = "replay",
    delay: float = 0.0,
    advice: str = "",
    path: str = "",
    **lost: Any,
) -> RetryEvent:
    record = AttemptReport(number=1, phase=phase, failure=failure.code, elapsed=61.23, **lost)
    return RetryEvent(action, 1, 4, failure, record, delay, advice, path)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            again(Failure.RESET, Phase.PRELUDE, status=200),
            "cut after 61.2 s, before any output (connection reset) · replaying, attempt 2 of 4",
        ),
        (
            again(Failure.IDLE_TIMEOUT, Phase.HEADERS, delay=1.0, detail="nothing for 60 s, the limit of --idle"),
            "given up after 61.2 s, before any output (idle timeout: nothing for 60 s, the limit of --idle)"
            " · replaying in 1.0 s, attempt 2 of 4",
        ),
        (
            again(Failure.BUSY, Phase.HEADERS, action="retry", status=429, detail="HTTP 429", delay=20.0),
            "refused after 61.2 s (HTTP 429) · retrying in 20.0 s, attempt 2 of 4",
        ),
        (
            again(Failure.GATEWAY_GAVE_UP, Phase.HEADERS, status=504, detail="HTTP 504"),
            "refused after 61.2 s (HTTP 504) · replaying, attempt 2 of 4",
        ),
        (
            again(Failure.RESET, Phase.OUTPUT, action="restart", status=200),
            "cut after 61.2 s, after output (connection reset) · restarting, attempt 2 of 4",
        ),
        (
            again(Failure.REFUSED, Phase.HEADERS, action="restart", status=404, detail="HTTP 404"),
            "refused after 61.2 s (HTTP 404) · restarting, attempt 2 of 4",
        ),
        (
            again(Failure.CONNECTION_REFUSED, Phase.CONNECT, action="retry", delay=0.5),
            "failed after 61.2 s (connection refused) · retrying in 0.5 s, attempt 2 of 4",
        ),
        (
            again(Failure.PROXY_CANNOT_REACH, Phase.CONNECT, action="retry", path="direct"),
            "failed after 61.2 s (the proxy cannot reach the server) · retrying, attempt 2 of 4"
            " · going by direct from now on",
        ),
        (
            again(Failure.NOT_PROCESSED, Phase.PRELUDE, action="retry", status=200, delay=0.5),
            "failed after 61.2 s (refused by the server before processing) · retrying in 0.5 s, attempt 2 of 4",
        ),
    ],
)
def test_one_line(event: RetryEvent, line: str) -> None:
    assert describe(event) == line


def test_it_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    event = again(Failure.RESET, Phase.PRELUDE)
    told: list[RetryEvent] = []
    with caplog.at_level(logging.DEBUG, "unbroken"):
        notify(event, told.append)
    assert told == [event]
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("unbroken", logging.WARNING, describe(event))
    assert vars(record)["unbroken"] is event


def test_advice_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "unbroken"):
        notify(again(Failure.RESET, Phase.PRELUDE, advice="turn PING on (50 % of cuts)"), None)
    assert [record.getMessage() for record in caplog.records][1:] == ["turn PING on (50 % of cuts)"]


def test_without_observers_and_with_logging_off_nothing_happens() -> None:
    notify(again(Failure.RESET, Phase.PRELUDE), None)
