"""The blocking wire and the async one, used alike: one suite runs over both.

An async wire lives on the event loop of a portal, on another thread; so a test is blocking code in any case, and may
wait for what its server sees while the client is busy.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import anyio.from_thread
import trio.lowlevel

from unbroken.core.actions import Limits
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.errors import WireError
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.http import HttpWire

TIMEOUT = 30.0

SIDES = ("blocking", "asyncio", "uvloop", "trio")


def limits(
    *, connect: float = 30, idle: float = 30, until: float | None = None, ping: float = 0, ping_timeout: float = 30
) -> Limits:
    """Limits that do not pass within a test, but for those given."""
    return Limits(connect, idle, until, ping, ping_timeout)


PATIENT = limits()


def chat(base_url: str, body: bytes = b"", **headers: str) -> Request:
    """A streaming chat completion, as the lab's upstream answers it."""
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return Request("POST", f"{base_url}/chat/completions", fields, body or json.dumps({"stream": True}).encode())


class Talk:
    """One exchange."""

    def __init__(self, side: Side, exchange: Any) -> None:
        self._side = side
        self._exchange = exchange

    @property
    def path(self) -> Any:
        return self._exchange.path

    def connect(self, limits: Limits = PATIENT) -> None:
        self._side.run(self._exchange.connect, limits)

    def send(self, limits: Limits = PATIENT) -> Any:
        return self._side.run(self._exchange.send, limits)

    def read(self, limits: Limits = PATIENT) -> Any:
        return self._side.run(self._exchange.read, limits)

    def read_until(self, marker: bytes, limits: Limits = PATIENT) -> bytes:
        """The body up to and with the piece that contains ``marker``."""
        body = b""
        while marker not in body:
            piece = self.read(limits)
            assert piece, f"ended after {body!r}"
            body += piece
        return body

    def read_all(self, limits: Limits = PATIENT) -> bytes:
        return b"".join(iter(lambda: self.read(limits), b""))

    def close(self) -> None:
        self._side.run(getattr(self._exchange, "aclose", None) or self._exchange.close)

    def start_sending(self, limits: Limits = PATIENT) -> Pending:
        """Send in the background."""
        return self._start(self._exchange.send, limits)

    def start_reading(self, limits: Limits = PATIENT) -> Pending:
        """Read in the background."""
        return self._start(self._exchange.read, limits)

    def _start(self, work: Callable[..., Any], limits: Limits) -> Pending:
        return Pending(self, self._side, work, limits)


class Pending:
    """Something that an exchange is doing in the background."""

    def __init__(self, talk: Talk, side: Side, work: Callable[..., Any], *args: Any) -> None:
        self._talk = talk
        self._side = side
        self._ended = threading.Event()
        self._future: Future[Any] = Future()
        if side.portal is None:
            threading.Thread(target=self._run, args=(work, *args), name="test-client", daemon=True).start()
        else:
            self._future = side.portal.start_task_soon(self._arun, work, *args)

    def cancel(self) -> None:
        """Cancel the task; blocking code has none, and is left by closing the exchange from another thread."""
        if self._side.portal is None:
            self._talk.close()
        else:
            self._future.cancel()

    def result(self) -> Any:
        return self._future.result(TIMEOUT)

    def wait_until_ended(self) -> float:
        """Wait until nothing runs any more; return when that was seen."""
        assert self._ended.wait(TIMEOUT)
        return time.monotonic()

    def _run(self, work: Callable[..., Any], *args: Any) -> None:
        try:
            self._future.set_result(work(*args))
        except BaseException as exc:  # noqa: BLE001
            self._future.set_exception(exc)
        finally:
            self._ended.set()

    async def _arun(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            return await work(*args)
        finally:
            self._ended.set()


class Side:
    """One way to use a wire.

    Attributes:
        portal: where async code runs; ``None`` for blocking code.
    """

    def __init__(self, name: str, portal: anyio.from_thread.BlockingPortal | None) -> None:
        self.name = name
        self.portal = portal

    @contextmanager
    def wire(self, **options: Any) -> Iterator[Callable[[Request], Talk]]:
        """A wire that reads no environment unless it is given one; yields what makes an exchange of it."""
        make = HttpWire if self.portal is None else AsyncHttpWire
        wire = make(**{"environ": {}, **options})
        talks: list[Talk] = []

        def begin(request: Request) -> Talk:
            talks.append(Talk(self, wire.exchange(request)))
            return talks[-1]

        try:
            yield begin
        finally:
            for talk in talks:
                talk.close()
            self.run(getattr(wire, "aclose", None) or wire.close)

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args) if self.portal is None else self.portal.call(work, *args)

    def tasks(self) -> int:
        """How many tasks there are on the event loop."""
        if self.portal is None:
            return 0
        return self.portal.call(_count_tasks, self.name)


@contextmanager
def open_side(name: str) -> Iterator[Side]:
    if name == "blocking":
        yield Side(name, None)
    else:
        backend, options = ("asyncio", {"use_uvloop": True}) if name == "uvloop" else (name, {})
        with anyio.from_thread.start_blocking_portal(backend, options) as portal:
            yield Side(name, portal)


async def _count_tasks(name: str) -> int:
    await anyio.sleep(0)
    return len(asyncio.all_tasks()) if name != "trio" else trio.lowlevel.current_statistics().tasks_living


def failure_of(work: Callable[..., Any], *args: Any) -> tuple[Failure, str]:
    """The failure of something that must fail, and its detail."""
    try:
        result = work(*args)
    except WireError as error:
        return error.failure, error.detail
    raise AssertionError(f"no failure, but {result!r}")
