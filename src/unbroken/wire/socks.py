"""The handshake with a SOCKS5 proxy, without I/O (RFC 1928, RFC 1929)."""

from __future__ import annotations

from collections.abc import Generator

import socksio
from socksio import socks5 as socks

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.handshakes import Buffer
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination

_VERSION = b"\x05"

_REPLIES = {
    socks.SOCKS5ReplyCode.GENERAL_SERVER_FAILURE: (Failure.PROXY_UNREACHABLE, "general SOCKS server failure"),
    socks.SOCKS5ReplyCode.CONNECTION_NOT_ALLOWED_BY_RULESET: (Failure.PROXY_REFUSED, "not allowed by ruleset"),
    socks.SOCKS5ReplyCode.NETWORK_UNREACHABLE: (Failure.PROXY_UNREACHABLE, "network unreachable"),
    socks.SOCKS5ReplyCode.HOST_UNREACHABLE: (Failure.PROXY_UNREACHABLE, "host unreachable"),
    socks.SOCKS5ReplyCode.CONNECTION_REFUSED: (Failure.PROXY_UNREACHABLE, "connection refused"),
    socks.SOCKS5ReplyCode.TTL_EXPIRED: (Failure.PROXY_UNREACHABLE, "TTL expired"),
    socks.SOCKS5ReplyCode.COMMAND_NOT_SUPPORTED: (Failure.PROXY_REFUSED, "command not supported"),
    socks.SOCKS5ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED: (Failure.PROXY_REFUSED, "address type not supported"),
}
"""The replies of RFC 1928, section 6, other than success."""

_WANTS = {
    socks.SOCKS5AuthMethod.GSSAPI: "the proxy wants GSSAPI",
    socks.SOCKS5AuthMethod.USERNAME_PASSWORD: "the proxy wants user and password",
    socks.SOCKS5AuthMethod.NO_ACCEPTABLE_METHODS: "no acceptable method: the proxy wants other credentials",
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
        reply = socks.SOCKS5Reply.loads((yield from _reply(buffer)))
    except socksio.ProtocolError as exc:
        raise WireError(Failure.PROXY_PROTOCOL, str(exc)) from None
    if reply.reply_code is not socks.SOCKS5ReplyCode.SUCCEEDED:
        raise WireError(*_REPLIES[reply.reply_code])


def _authenticate(buffer: Buffer, proxy: Proxy) -> Generator[None, None, None]:
    methods = [socks.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.auth:
        methods.append(socks.SOCKS5AuthMethod.USERNAME_PASSWORD)
    buffer.outgoing += socks.SOCKS5AuthMethodsRequest(methods).dumps()
    choice = yield from buffer.read(2)
    if choice[:1] != _VERSION:
        raise WireError(Failure.PROXY_PROTOCOL, "it does not speak SOCKS5")
    method = socks.SOCKS5AuthReply.loads(choice).method
    if method not in methods:
        raise WireError(Failure.PROXY_AUTH, _WANTS[method])
    if method is socks.SOCKS5AuthMethod.USERNAME_PASSWORD and proxy.auth:
        user, password = (part.encode() for part in proxy.auth)
        buffer.outgoing += socks.SOCKS5UsernamePasswordRequest(user, password).dumps()
        if not socks.SOCKS5UsernamePasswordReply.loads((yield from buffer.read(2))).success:
            raise WireError(Failure.PROXY_AUTH, "invalid user or password")


def _reply(buffer: Buffer) -> Generator[None, None, bytes]:
    """Read a reply, whose length depends on the kind of address in it (RFC 1928, section 6)."""
    start = yield from buffer.read(5)
    address = {1: 4, 3: 1 + start[4], 4: 16}.get(start[3])
    if start[:1] != _VERSION or address is None:
        raise WireError(Failure.PROXY_PROTOCOL, "a malformed reply")
    return start + (yield from buffer.read(4 + address + 2 - len(start)))
