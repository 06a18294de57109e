"""Connections from a proxy to its targets; by default to this machine only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress

from unbroken.lab.raw_stream import RawStream


class ForbiddenTargetError(Exception):
    """The target is not on this machine."""


async def dial(host: str, port: int, *, allow_remote: bool) -> RawStream:
    """Connect to `host`; see :func:`connect`."""
    return RawStream(await connect(host, port, allow_remote=allow_remote))


async def connect(host: str, port: int, *, allow_remote: bool) -> socket.socket:
    """Return a socket that is connected to `host`, a name or an address.

    Without `allow_remote` only loopback addresses and ``localhost`` names are dialled, and no name is looked up.

    Raises:
        ForbiddenTargetError: `host` is remote, without `allow_remote`.
        OSError: the host is unknown or cannot be reached.
    """
    error: OSError = ConnectionRefusedError(f"nothing to dial for {host}")
    for address in await _addresses(host, port, allow_remote):
        try:
            return await _connect(address, port)
        except OSError as failure:
            error = failure
    raise error


async def _addresses(host: str, port: int, allow_remote: bool) -> list[str]:
    """Return the addresses of `host`, in the order in which they are tried."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return ["127.0.0.1", "::1"]
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if is_loopback:
        return [host]
    if not allow_remote:
        raise ForbiddenTargetError(host)
    return await _look_up(host, port)


async def _look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name.

    The look-up cannot be cancelled, and an event loop that ends waits for its own threads: this one is a daemon.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        addresses: list[str] = []
        error: OSError | None = None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(info[4][0]) for info in infos]
        except OSError as failure:
            error = failure
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, addresses, error)

    def settle(addresses: list[str], error: OSError | None) -> None:
        if found.cancelled():
            return
        if error:
            found.set_exception(error)
        else:
            found.set_result(addresses)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    return await found


async def _connect(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
