"""One client for everybody: threads and tasks do not get into one another's way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from client.asking import KEY, QUICK
from unbroken.client import AsyncClient, Client
from unbroken.errors import StateError
from unbroken.lab import Fault, Upstream

Serve = Callable[..., Upstream]
WHOLE = "Hello from the lab."

PERSISTENT = dataclasses.replace(QUICK, replays=99)
"""Faults are dealt in the order of arrival: one turn may meet any number of them in a row."""


def faults(count: int) -> list[Fault | None]:
    """Every third request is lost before output."""
    return [Fault("fin", "after_role") if number % 3 == 0 else None for number in range(count)]


def test_by_threads(serve: Serve) -> None:
    threads, turns = 16, 5
    upstream = serve(*faults(threads * turns))

    def ask(number: int) -> list[str]:
        texts = []
        for turn in range(turns):
            with client.stream(f"prompt {number}.{turn}") as stream:
                texts.append(stream.read().text)
        return texts

    with (
        Client(base_url=upstream.url, api_key=KEY, policy=PERSISTENT, _environ={}) as client,
        ThreadPoolExecutor(threads) as pool,
    ):
        results = list(pool.map(ask, range(threads)))
    assert results == [[WHOLE] * turns] * threads
    prompts = {json.loads(request.body)["messages"][0]["content"] for request in upstream.requests}
    assert len(prompts) == threads * turns


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_by_tasks(serve: Serve, backend: str) -> None:
    tasks = 100
    upstream = serve(*faults(tasks))
    texts = []

    async def ask(client: AsyncClient, number: int) -> None:
        async with client.stream(f"prompt {number}") as turn:
            texts.append((await turn.read()).text)

    async def main() -> None:
        async with (
            AsyncClient(base_url=upstream.url, api_key=KEY, policy=PERSISTENT, _environ={}) as client,
            anyio.create_task_group() as group,
        ):
            for number in range(tasks):
                group.start_soon(ask, client, number)

    anyio.run(main, backend=backend)
    assert texts == [WHOLE] * tasks
    prompts = {json.loads(request.body)["messages"][0]["content"] for request in upstream.requests}
    assert len(prompts) == tasks


def test_a_connection_is_used_again(serve: Serve) -> None:
    upstream = serve()
    with Client(base_url=upstream.url, api_key=KEY, _environ={}) as client:
        for _ in range(3):
            with client.stream("Hi") as turn:
                assert turn.read().text == WHOLE
    assert upstream.connections == 1
    assert upstream.wait_for(lambda: upstream.open_connections == 0, 5)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_connection_is_used_again_by_the_asynchronous_client(serve: Serve, backend: str) -> None:
    upstream = serve()

    async def main() -> None:
        async with AsyncClient(base_url=upstream.url, api_key=KEY, _environ={}) as client:
            for _ in range(3):
                async with client.stream("Hi") as turn:
                    assert (await turn.read()).text == WHOLE

    anyio.run(main, backend=backend)
    assert upstream.connections == 1


def test_a_turn_is_read_once_and_its_answer_stays(serve: Serve) -> None:
    with Client(base_url=serve().url, api_key=KEY, _environ={}) as client:
        with client.stream("Hi") as turn:
            assert turn.read() is turn.read() is turn.answer
            assert list(turn) == []
        assert turn.read().text == WHOLE
        with pytest.raises(StateError, match="open the turn first"):
            client.stream("Hi").read()
        with pytest.raises(StateError, match="opened once"), turn:
            pass
