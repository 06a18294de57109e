"""The handshake with a SOCKS5 proxy, without I/O (RFC 1928, RFC 1929)."""

from __future__ import annotations

from collections.abc import Generator

import socksio
from socksio import socks5 as socks

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.culprits import other_protocol
from unbroken.wire.handshakes import Buffer
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination

_VERSION = b"\x05"

_REPLIES = {
    1: (Failure.PROXY_CANNOT_REACH, "general SOCKS server failure"),
    2: (Failure.PROXY_REFUSED, "not allowed by ruleset"),
    3: (Failure.PROXY_CANNOT_REACH, "network unreachable"),
    4: (Failure.PROXY_CANNOT_REACH, "host unreachable"),
    5: (Failure.PROXY_CANNOT_REACH, "connection refused"),
    6: (Failure.PROXY_CANNOT_REACH, "TTL expired"),
    7: (Failure.PROXY_REFUSED, "command not supported"),
    8: (Failure.PROXY_REFUSED, "address type not supported"),
}
"""The replies of RFC 1928, section 6, other than success."""

_WANTS = {
    socks.SOCKS5AuthMethod.GSSAPI: "it wants GSSAPI, which is not supported",
    socks.SOCKS5AuthMethod.USERNAME_PASSWORD: "it chose a method that was not offered",
    socks.SOCKS5AuthMethod.NO_ACCEPTABLE_METHODS: "no acceptable method",
}
"""The choices of a proxy (RFC 1928, section 3) that cannot be met."""


def socks5(buffer: Buffer, destination: Destination, proxy: Proxy) -> Generator[None, None, None]:
    """Ask a SOCKS5 proxy for a tunnel; it resolves the name. A proxy may choose to ask for no credentials.

    Raises:
        WireError: the proxy refuses, or does not speak SOCKS5.
    """
    try:
        yield from _authenticate(buffer, proxy)
        command = socks.SOCKS5Command.CONNECT
        buffer.outgoing += socks.SOCKS5CommandRequest.from_address(
            command, (destination.host, destination.port)
        ).dumps()
    except socksio.ProtocolError as exc:
        raise WireError(Failure.PROXY_PROTOCOL, str(exc)) from None
    yield from _reply(buffer, proxy)


def _authenticate(buffer: Buffer, proxy: Proxy) -> Generator[None, None, None]:
    methods = [socks.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.auth:
        methods.append(socks.SOCKS5AuthMethod.USERNAME_PASSWORD)
    buffer.outgoing += socks.SOCKS5AuthMethodsRequest(methods).dumps()
    choice = yield from buffer.read(2)
    if choice[:1] != _VERSION:
        raise other_protocol(proxy, choice + buffer.incoming)
    method = socks.SOCKS5AuthReply.loads(choice).method
    if method not in methods:
        raise WireError(Failure.PROXY_AUTH, _WANTS[method])
    if method is socks.SOCKS5AuthMethod.USERNAME_PASSWORD and proxy.auth:
        user, password = (part.encode() for part in proxy.auth)
        buffer.outgoing += socks.SOCKS5UsernamePasswordRequest(user, password).dumps()
        if not socks.SOCKS5UsernamePasswordReply.loads((yield from buffer.read(2))).success:
            raise WireError(Failure.PROXY_AUTH, "invalid user or password")


def _reply(buffer: Buffer, proxy: Proxy) -> Generator[None, None, None]:
    """Read a reply (RFC 1928, section 6). What follows a refusal is not waited for: some proxies close instead."""
    version, code = yield from buffer.read(2)
    if version != _VERSION[0]:
        raise other_protocol(proxy, bytes([version, code]) + buffer.incoming)
    if code:
        raise WireError(*_REPLIES.get(code, (Failure.PROXY_CANNOT_REACH, f"SOCKS reply {code}")))
    _, kind, first = yield from buffer.read(3)
    address = {1: 4, 3: 1 + first, 4: 16}.get(kind)
    if address is None:
        raise WireError(Failure.PROXY_PROTOCOL, "a malformed reply")
    yield from buffer.read(address - 1 + 2)
