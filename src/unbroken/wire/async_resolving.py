"""Name resolution and connecting for asyncio and trio; ``resolving`` is the blocking twin and has the details."""

from __future__ import annotations

import socket
import time

import anyio

from unbroken.wire.resolving import SLICE, Address, Lookup, Race, Remaining, is_address, look_up


async def connect(host: str, port: int, remaining: Remaining) -> socket.socket:
    """As :func:`unbroken.wire.resolving.connect`."""
    with Race(await resolve(host, port, remaining)) as race:
        while True:
            wait = race.start_due(time.monotonic())
            with anyio.move_on_after(min(wait, remaining(), SLICE)):
                await _any_writable(race.running)
            if winner := race.winner():
                return winner


async def resolve(host: str, port: int, remaining: Remaining) -> list[Address]:
    """As :func:`unbroken.wire.resolving.resolve`."""
    if is_address(host):
        return look_up(host, port)
    with Lookup() as lookup:
        lookup.start(host, port)
        while True:
            with anyio.move_on_after(min(remaining(), SLICE)):
                await anyio.wait_readable(lookup.bell)
                return lookup.result()


async def _any_writable(socks: list[socket.socket]) -> None:
    async def wait(sock: socket.socket) -> None:
        await anyio.wait_writable(sock)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for sock in socks:
            group.start_soon(wait, sock)
