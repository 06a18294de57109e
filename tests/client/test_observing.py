"""Whoever wants to know is told of every retry and replay, before it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from client.asking import Asking
from unbroken.core.actions import RetryEvent
from unbroken.lab import Fault, Upstream

Serve = Callable[..., Upstream]
FAULTS = [Fault("status", "before_headers", status=429), Fault("fin", "after_role"), Fault("error_event", "after_role")]


def test_the_observer_is_told_of_each(asking: Asking, serve: Serve) -> None:
    told: list[RetryEvent] = []
    upstream = serve(*FAULTS)
    said = asking(upstream, client={"on_retry": lambda event: told.append((event, len(upstream.requests)))})
    assert said.error is None
    assert [(event.action, event.attempt, event.lost.status, requests) for event, requests in told] == [
        ("retry", 1, 429, 1),
        ("replay", 2, 200, 2),
        ("replay", 3, 200, 3),
    ]
    assert [event.lost for event, _ in told] == list(said.report.attempts[:3])


def test_so_is_the_log(asking: Asking, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unbroken")
    asking(serve(*FAULTS))
    records = [record for record in caplog.records if record.name == "unbroken"]
    assert [record.levelno for record in records] == [logging.WARNING] * 3
    assert [record.getMessage().split()[0] for record in records] == ["refused", "cut", "cut"]
    assert all(isinstance(vars(record)["unbroken"], RetryEvent) for record in records)


def test_where_nothing_goes_wrong_nothing_is_said(
    asking: Asking, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "unbroken")
    told: list[RetryEvent] = []
    asking(serve(), client={"on_retry": told.append})
    assert told == []
    assert caplog.records == []


def test_an_observer_that_raises_ends_the_turn(asking: Asking, serve: Serve) -> None:
    def on_retry(event: RetryEvent) -> None:
        raise ZeroDivisionError("the observer's own mistake")

    upstream = serve(Fault("error_event", "after_role"))
    with pytest.raises(ZeroDivisionError):
        asking(upstream, client={"on_retry": on_retry})
    assert len(upstream.requests) == 1
    assert upstream.wait_for(lambda: upstream.open_connections == 0, 5)
