"""Connections from a proxy to its targets; by default to this machine only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from unbroken.lab.raw_stream import RawStream


class ForbiddenTargetError(Exception):
    """The target is not on this machine."""


async def dial(host: str, port: int, *, allow_remote: bool) -> RawStream:
    """Connect to `host`, a name or an address.

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
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


async def _connect(address: str, port: int) -> RawStream:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return RawStream(sock)
