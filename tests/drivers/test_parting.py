"""What is asked of a server once a turn is over: three tries within 5 s, whatever the caller's cancellation does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from core.resumption.responses import ANSWER, HEL, PRELUDE
from drivers.scripted import OK, Happening, Make, ScriptedWire, make_async_driver, make_driver, reset
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.suspicion import Suspected
from unbroken.errors import StreamCut

BACKGROUND = Policy(background=True, resumes=0)
BEGUN: tuple[Happening, ...] = (OK, PRELUDE + HEL)
BUSY = Head(503)
CANCEL, DELETE = ("POST", "/v1/responses/resp_1/cancel"), ("DELETE", "/v1/responses/resp_1")


@pytest.fixture(params=[make_driver, make_async_driver], ids=["blocking", "asynchronous"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


def question(**body: Any) -> Request:
    document = {"model": "m", "input": "Hi", "stream": True, **body}
    return Request("POST", "http://lab/v1/responses", (), json.dumps(document).encode())


def begun(make: Make, *answers: tuple[Happening, ...], **body: Any) -> tuple[ScriptedWire, Any]:
    """A turn of which the first text came, and what the server answers later."""
    wire = ScriptedWire(BEGUN, *answers)
    driver = make(wire, BACKGROUND, request=question(**body))
    driver.open()
    next(driver)
    wire.log.clear()
    return wire, driver


def left(make: Make, *answers: tuple[Happening, ...], **body: Any) -> tuple[ScriptedWire, Any]:
    """The same, whose caller leaves."""
    wire, driver = begun(make, *answers, **body)
    driver.close()
    return wire, driver


def said(wire: ScriptedWire) -> list[tuple[str, str]]:
    return [(exchange.request.method, exchange.request.path) for exchange in wire.exchanges[1:]]


def test_the_stream_is_closed_first_and_then_the_response_cancelled(make: Make) -> None:
    wire, driver = left(make, (Head(200),))
    driver.close()
    assert said(wire) == [CANCEL]
    assert wire.log == ["close", "send", "close"]
    assert driver.report.background.cancelled is True


def test_an_event_of_the_path_is_no_answer(make: Make) -> None:
    wire, driver = left(make, (Suspected(20.0), Head(200)))
    assert wire.log == ["close", "send", "read", "close"]
    assert driver.report.background.cancelled is True


def test_three_tries_and_then_the_report_says_so(make: Make) -> None:
    wire, driver = left(make, (reset(),), (BUSY,), (reset(),))
    assert said(wire) == [CANCEL] * 3
    assert wire.log == ["close", "send", "close", "sleep 0.2", "send", "close", "sleep 0.4", "send", "close"]
    assert driver.report.background.unacknowledged == ("cancel",)


def test_a_refusal_is_final(make: Make) -> None:
    wire, driver = left(make, (Head(404),))
    assert said(wire) == [CANCEL]
    assert driver.report.background.unacknowledged == ("cancel",)


def test_all_of_it_ends_within_five_seconds(make: Make) -> None:
    wire, driver = begun(make, (reset(),), (Head(200),), (Head(200),), store=False)
    began = wire.now
    driver.close()
    assert said(wire) == [CANCEL, CANCEL, DELETE]
    limits = [limit for what, limit in wire.limits if what == "send"][1:]
    assert {limit.until for limit in limits} == {began + 5.0}
    assert [round(limit.connect, 3) for limit in limits] == [5.0, 3.8, 2.8]


def test_what_the_caller_did_not_want_kept_is_deleted_after_the_end(make: Make) -> None:
    wire = ScriptedWire((OK, ANSWER, b""), (Head(200),))
    driver = make(wire, BACKGROUND, request=question(store=False))
    driver.open()
    assert b"".join(driver) == ANSWER
    assert said(wire) == [DELETE]
    assert (driver.report.background.cancelled, driver.report.background.deleted) == (None, True)
    driver.close()
    assert len(wire.exchanges) == 2


def test_a_turn_that_failed_cancels_its_response_and_the_error_says_what_came_of_it(make: Make) -> None:
    wire = ScriptedWire((*BEGUN, reset()), (Head(404),))
    driver = make(wire, BACKGROUND, request=question())
    driver.open()
    next(driver)
    with pytest.raises(StreamCut) as raised:
        next(driver)
    assert said(wire) == [CANCEL]
    assert raised.value.report is not None
    assert raised.value.report.background is not None
    assert raised.value.report.background.unacknowledged == ("cancel",)


def test_a_whole_answer_is_left_alone(make: Make) -> None:
    wire = ScriptedWire((OK, ANSWER, b""))
    driver = make(wire, BACKGROUND, request=question())
    driver.open()
    assert b"".join(driver) == ANSWER
    driver.close()
    assert said(wire) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_callers_cancellation_does_not_reach_it(backend: str) -> None:
    wire = ScriptedWire((*BEGUN, anyio.sleep_forever), (lambda: anyio.sleep(0.05), Head(200)))
    driver = make_async_driver(wire, BACKGROUND, request=question())

    async def main() -> None:
        async with driver.within_one_loop as turn:
            await turn.open()
            with anyio.move_on_after(0.05):
                async for _ in turn:
                    pass
            assert turn.report.background is not None
            assert turn.report.background.cancelled is True

    anyio.run(main, backend=backend)
    assert said(wire) == [CANCEL]


def test_nor_does_that_of_its_task() -> None:
    wire = ScriptedWire((*BEGUN, anyio.sleep_forever), (lambda: anyio.sleep(0.05), Head(200)))
    turn = make_async_driver(wire, BACKGROUND, request=question()).within_one_loop

    async def main() -> None:
        async def run() -> None:
            await turn.open()
            async for _ in turn:
                has_begun.set()

        has_begun = asyncio.Event()
        task = asyncio.create_task(run())
        await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert turn.report.background is not None
    assert turn.report.background.cancelled is True
