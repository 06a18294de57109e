"""Every way to leave a turn that is under way, and how long it takes until the server knows."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import trio

import ctrl_c
from conformance.faces import PROMPT, Ask
from unbroken.client import AsyncClient, Client
from unbroken.core.actions import RetryEvent
from unbroken.core.report import Report
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.synchronous import Driver
from unbroken.errors import StateError
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.http import HttpWire

When = Callable[[], bool]
"""Blocks until it is time to leave."""

Tell = Callable[[], None]


@dataclasses.dataclass(kw_only=True)
class Left:
    """How a turn was left.

    Attributes:
        at: when the caller left, by ``time.monotonic``.
        back_at: when control was back with the caller.
        report: the turn's.
        told: what the observer was told.
    """

    at: float
    back_at: float
    report: Report
    told: list[RetryEvent]


class Caller:
    """Leaves when it is time; ``tell`` is called when a wait begins."""

    def __init__(self, when: When, tell: Tell) -> None:
        self._when = when
        self._tell = tell
        self.at = 0.0
        self.told: list[RetryEvent] = []

    def on_retry(self, event: RetryEvent) -> None:
        self.told.append(event)
        self._tell()

    def wait(self) -> None:
        assert self._when(), "it never came to that"
        self.at = time.monotonic()

    def left(self, report: Report) -> Left:
        return Left(at=self.at, back_at=time.monotonic(), report=report, told=self.told)


# Blocking


def driver_by_ctrl_c(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    wire = HttpWire(verify=ask.tls, environ={})
    driver = Driver(wire, *ask.request(), ask.policy, on_retry=caller.on_retry)

    def run() -> None:
        driver.open()
        for _ in driver:
            pass

    caller.at = ctrl_c.interrupted(run, when)
    wire.close()
    return caller.left(driver.report)


def driver_by_another_thread(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    wire = HttpWire(verify=ask.tls, environ={})
    driver = Driver(wire, *ask.request(), ask.policy, on_retry=caller.on_retry)

    def leave() -> None:
        caller.wait()
        driver.close()

    leaver = threading.Thread(target=leave)
    leaver.start()
    try:
        driver.open()
        for _ in driver:
            pass
    except StateError:
        pass
    else:
        raise AssertionError("what was closed looked whole")
    finally:
        leaver.join()
        wire.close()
    return caller.left(driver.report)


def client_by_ctrl_c(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    with Client(**ask.client_arguments(), on_retry=caller.on_retry) as client:
        turn = client.stream(PROMPT, **ask.options)

        def run() -> None:
            with turn:
                turn.read()

        caller.at = ctrl_c.interrupted(run, when)
        return caller.left(turn.report)


# Asynchronous


async def _driver_by_scope(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    wire = AsyncHttpWire(verify=ask.tls, environ={})
    driver = AsyncDriver(wire, *ask.request(), ask.policy, on_retry=caller.on_retry)

    async def run() -> None:
        await driver.open()
        async for _ in driver:
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.to_thread.run_sync(caller.wait)
        group.cancel_scope.cancel()
    left = caller.left(driver.report)
    await wire.aclose()
    return left


async def _driver_by_another_task(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    wire = AsyncHttpWire(verify=ask.tls, environ={})
    driver = AsyncDriver(wire, *ask.request(), ask.policy, on_retry=caller.on_retry)

    async def leave() -> None:
        await anyio.to_thread.run_sync(caller.wait)
        await driver.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        try:
            await driver.open()
            async for _ in driver:
                pass
        except StateError:
            pass
        else:
            raise AssertionError("what was closed looked whole")
    left = caller.left(driver.report)
    await wire.aclose()
    return left


async def _client_by_task(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    async with AsyncClient(**ask.client_arguments(), on_retry=caller.on_retry) as client:
        turn = client.stream(PROMPT, **ask.options)

        async def run() -> None:
            async with turn:
                await turn.read()

        task = asyncio.create_task(run())
        await asyncio.to_thread(caller.wait)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return caller.left(turn.report)


async def _client_by_scope(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
    caller = Caller(when, tell)
    async with AsyncClient(**ask.client_arguments(), on_retry=caller.on_retry) as client:
        turn = client.stream(PROMPT, **ask.options)

        async def run() -> None:
            async with turn:
                await turn.read()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.to_thread.run_sync(caller.wait)
            nursery.cancel_scope.cancel()
        return caller.left(turn.report)


def _on(backend: str, function: Callable[..., Any]) -> Callable[..., Left]:
    def run(ask: Ask, when: When, tell: Tell = lambda: None) -> Left:
        left: Left = anyio.run(function, ask, when, tell, backend=backend)
        return left

    return run


WAYS: dict[str, Callable[..., Left]] = {
    "driver-ctrl-c": driver_by_ctrl_c,
    "driver-thread": driver_by_another_thread,
    "driver-asyncio-scope": _on("asyncio", _driver_by_scope),
    "driver-trio-scope": _on("trio", _driver_by_scope),
    "driver-asyncio-task": _on("asyncio", _driver_by_another_task),
    "client-ctrl-c": client_by_ctrl_c,
    "client-asyncio": _on("asyncio", _client_by_task),
    "client-trio": _on("trio", _client_by_scope),
}
