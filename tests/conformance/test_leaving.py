"""A caller that leaves ends the turn, in every phase: the server knows within 100 ms, and nothing is sent again."""

from __future__ import annotations

import dataclasses
import gc
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from conformance.faces import POLICY, PROMPT
from conformance.fixtures import Setting
from conformance.leaving import WAYS, Left
from timing import Control
from unbroken.client import AsyncClient, Client
from unbroken.core.failures import Phase
from unbroken.errors import StateError
from unbroken.lab import Fault, Upstream


@pytest.fixture(params=WAYS)
def leave(request: pytest.FixtureRequest) -> Callable[..., Left]:
    return WAYS[request.param]


def has_come_to(upstream: Upstream, at: str) -> Callable[[], bool]:
    """Waits until an upstream that stalls there has come to this point."""
    marks: dict[str, Callable[[], Any]] = {
        "before_headers": lambda: upstream.requests,
        "after_headers": lambda: upstream.requests and upstream.requests[0].head_sent,
        "after_role": lambda: upstream.requests and b'"role"' in upstream.requests[0].sent,
        "after_token": lambda: upstream.requests and b"Hello" in upstream.requests[0].sent,
        "after_finish": lambda: upstream.requests and b'"stop"' in upstream.requests[0].sent,
    }
    return lambda: upstream.wait_for(marks[at], 10)


def knew_at(upstream: Upstream) -> float | None:
    """When a server that stalls for ever noticed that its client had left: nothing else ends that."""
    request = upstream.requests[0]
    return request.gone_at or request.done_at


@pytest.mark.timing
class TestTheServerKnowsWithin100Ms:
    @pytest.mark.parametrize("at", ["before_headers", "after_headers", "after_role", "after_token", "after_finish"])
    def test_of_a_caller_that_leaves(
        self, leave: Callable[..., Left], setting: Setting, at: str, promptly: Control
    ) -> None:
        upstream = setting.serve(Fault("stall", at))
        ask = setting.ask(upstream, policy=dataclasses.replace(POLICY, settle_timeout=5))
        left = leave(ask, has_come_to(upstream, at))
        assert upstream.wait_for(lambda: knew_at(upstream), 5)
        promptly(left.at, knew_at(upstream))
        assert len(upstream.requests) == upstream.connections == 1
        assert left.told == []
        (attempt,) = left.report.attempts
        assert attempt.failure == "cancelled"
        assert attempt.phase is not Phase.CONNECT

    def test_while_it_still_connects(self, leave: Callable[..., Left], settings, promptly: Control) -> None:
        setting: Setting = settings("http2")
        upstream = setting.serve(Fault("stall", "handshake"))
        left = leave(setting.ask(upstream), lambda: upstream.wait_for(lambda: upstream.open_connections, 5))
        promptly(left.at, left.back_at)
        assert upstream.wait_for(lambda: not upstream.open_connections, 5)
        assert upstream.connections == 1
        (attempt,) = left.report.attempts
        assert (attempt.failure, attempt.phase, attempt.billed) == ("cancelled", Phase.CONNECT, "no")


class TestNothingIsSentAgain:
    @pytest.mark.parametrize("way", WAYS)
    def test_by_a_caller_that_leaves_during_a_wait(self, settings, way: str) -> None:
        setting: Setting = settings("http1")
        # Closed from elsewhere, the one who sleeps finds out when it wakes.
        from_elsewhere = way.endswith(("-thread", "-task"))
        delay = "0.3" if from_elsewhere else "30"
        upstream = setting.serve(Fault("status", "before_headers", status=503, headers={"retry-after": delay}))
        told = threading.Event()
        left = WAYS[way](setting.ask(upstream), lambda: told.wait(10), tell=told.set)
        assert left.back_at - left.at < 10
        assert len(upstream.requests) == 1
        assert [attempt.failure for attempt in left.report.attempts] == ["busy", "cancelled"]


class TestLeavingAWithStatement:
    def test_ends_the_turn(self, setting: Setting) -> None:
        upstream = setting.serve(Fault("stall", "after_token"))
        with Client(**setting.ask(upstream).client_arguments()) as client:
            with client.stream(PROMPT) as turn:
                for _ in turn:
                    break
            assert upstream.wait_for(lambda: knew_at(upstream), 5)
        assert turn.text == "Hello"
        assert turn.report.attempts[-1].failure == "cancelled"
        with pytest.raises(StateError, match="before its end"):
            turn.read()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_ends_the_asynchronous_turn(self, setting: Setting, backend: str) -> None:
        upstream = setting.serve(Fault("stall", "after_token"))

        async def main() -> None:
            async with AsyncClient(**setting.ask(upstream).client_arguments()) as client:
                async with client.stream(PROMPT) as turn:
                    async for _ in turn:
                        break
                gone = await anyio.to_thread.run_sync(upstream.wait_for, lambda: knew_at(upstream), 5)
                assert gone
                assert turn.text == "Hello"
                assert turn.report.attempts[-1].failure == "cancelled"
                with pytest.raises(StateError, match="before its end"):
                    await turn.read()

        anyio.run(main, backend=backend)

    def test_goes_on_where_the_iteration_was_left(self, settings) -> None:
        setting: Setting = settings("http1")
        upstream = setting.serve()
        with Client(**setting.ask(upstream).client_arguments()) as client, client.stream(PROMPT) as turn:
            for _ in turn:
                break
            assert turn.text == "Hello"
            assert turn.read().text == "Hello from the lab."


class TestNothingIsLeftBehind:
    COUNT = 40

    def test_by_turns_that_were_left(self, setting: Setting) -> None:
        upstream = setting.serve(*[Fault("stall", "after_token")] * (self.COUNT + 1))
        with Client(**setting.ask(upstream).client_arguments()) as client:
            self._leave(client)
            before = self._held(upstream)
            for _ in range(self.COUNT):
                self._leave(client)
            assert not self._held(upstream) - before
        assert len(upstream.requests) == self.COUNT + 1

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_by_tasks_that_were_cancelled(self, setting: Setting, backend: str) -> None:
        upstream = setting.serve(*[Fault("stall", "after_token")] * (self.COUNT + 1))

        async def main() -> tuple[Counter[str], Counter[str]]:
            async with AsyncClient(**setting.ask(upstream).client_arguments()) as client:
                await self._cancel(client, 1, backend)
                before = self._held(upstream)  # blocks: a thread to wait in would be counted
                for _ in range(4):
                    await self._cancel(client, self.COUNT // 4, backend)
                return before, self._held(upstream)

        before, after = anyio.run(main, backend=backend)
        assert not after - before
        assert len(upstream.requests) == self.COUNT + 1

    def _leave(self, client: Client) -> None:
        with client.stream(PROMPT) as turn:
            next(turn)

    async def _cancel(self, client: AsyncClient, count: int, backend: str) -> None:
        speaking = anyio.Semaphore(0)

        async def read() -> None:
            async with client.stream(PROMPT) as turn:
                async for _ in turn:
                    speaking.release()

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(read)
            for _ in range(count):
                await speaking.acquire()
            group.cancel_scope.cancel()

    def _held(self, upstream: Upstream) -> Counter[str]:
        """File descriptors and threads, once the server has let go of its own."""
        assert upstream.wait_for(lambda: not upstream.open_connections, 10)
        gc.collect()
        return Counter(descriptors=len(os.listdir("/proc/self/fd")), threads=threading.active_count())  # noqa: PTH208
