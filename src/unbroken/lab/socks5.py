"""The proxy's side of SOCKS5 (RFC 1928), with user name and password (RFC 1929)."""

from __future__ import annotations

import ipaddress

from unbroken.lab.negotiation import Credentials, ProxyRefusal
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.tunnel import TunnelKind

VERSION = 0x05
"""The first byte that a SOCKS5 client sends; no HTTP request begins with it."""

_NO_AUTH, _USER_PASSWORD, _NO_METHOD = 0x00, 0x02, 0xFF
_CONNECT = 0x01
_IPV4 = 0x01
_SUCCEEDED, _COMMAND_NOT_SUPPORTED, _ADDRESS_NOT_SUPPORTED = 0x00, 0x07, 0x08
_REFUSALS = {ProxyRefusal.ON_PURPOSE: 0x01, ProxyRefusal.FORBIDDEN: 0x02, ProxyRefusal.UNREACHABLE: 0x05}


class Socks5Negotiation:
    """A SOCKS5 client that has asked for a connection."""

    kind: TunnelKind = "socks5"
    head = b""

    def __init__(self, client: RawStream, target: tuple[str, int]) -> None:
        self.target = target
        self._client = client

    async def grant(self) -> None:
        """Report that the target is connected."""
        await _reply(self._client, _SUCCEEDED)

    async def refuse(self, refusal: ProxyRefusal, /) -> None:
        """Report why the target is not connected."""
        await _reply(self._client, _REFUSALS[refusal])


async def negotiate(client: RawStream, credentials: Credentials | None) -> Socks5Negotiation | None:
    """Read what the client asks for; return None if it was refused already.

    Raises:
        OSError: the client left.
    """
    if not await _authenticate(client, credentials):
        return None
    _, command, _, address_type = await client.read_exactly(4)
    if command != _CONNECT:
        await _reply(client, _COMMAND_NOT_SUPPORTED)
        return None
    host = await _read_host(client, address_type)
    if host is None:
        await _reply(client, _ADDRESS_NOT_SUPPORTED)
        return None
    return Socks5Negotiation(client, (host, int.from_bytes(await client.read_exactly(2))))


async def _authenticate(client: RawStream, credentials: Credentials | None) -> bool:
    _, count = await client.read_exactly(2)
    offered = await client.read_exactly(count)
    method = _NO_AUTH if credentials is None else _USER_PASSWORD
    if method not in offered:
        method = _NO_METHOD
    await client.send(bytes([VERSION, method]))
    if method == _USER_PASSWORD:
        return await _check_password(client, credentials)
    return method == _NO_AUTH


async def _check_password(client: RawStream, credentials: Credentials | None) -> bool:
    (version,) = await client.read_exactly(1)
    given = (await _read_string(client), await _read_string(client))
    is_right = given == credentials
    await client.send(bytes([version, 0 if is_right else 1]))
    return is_right


async def _read_host(client: RawStream, address_type: int) -> str | None:
    match address_type:
        case 0x01:  # IPv4
            return str(ipaddress.IPv4Address(await client.read_exactly(4)))
        case 0x03:  # a name
            return await _read_string(client)
        case 0x04:  # IPv6
            return str(ipaddress.IPv6Address(await client.read_exactly(16)))
        case _:
            return None


async def _read_string(client: RawStream) -> str:
    (length,) = await client.read_exactly(1)
    return (await client.read_exactly(length)).decode("utf-8", "replace")


async def _reply(client: RawStream, code: int) -> None:
    bound = bytes([_IPV4]) + bytes(4 + 2)  # 0.0.0.0:0; clients ignore it
    await client.send(bytes([VERSION, code, 0]) + bound)
