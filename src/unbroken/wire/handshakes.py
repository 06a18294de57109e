"""The handshakes with proxies, without I/O: HTTP CONNECT (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928, RFC 1929)."""

from __future__ import annotations

import re
from collections.abc import Generator

import httptools
import socksio
from socksio import socks5 as socks

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.http1 import words_of
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination, authority_of, proxy_authorization

MAX_RESPONSE = 64 * 1024
"""Bytes of the head of a proxy's response."""

_VERSION = b"\x05"

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")

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


class Buffer:
    """The bytes of a handshake, in both directions.

    Attributes:
        incoming: what has come and was not read yet.
        outgoing: what is to be sent.
    """

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def taken(self) -> bytes:
        """Remove and return what is to be sent."""
        data = bytes(self.outgoing)
        self.outgoing.clear()
        return data

    def read(self, size: int) -> Generator[None, None, bytes]:
        """Read so many bytes; each ``yield`` waits for more."""
        while len(self.incoming) < size:
            yield
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data


def connect(buffer: Buffer, destination: Destination, proxy: Proxy) -> Generator[None, None, None]:
    """Ask an HTTP proxy for a tunnel.

    Raises:
        WireError: the proxy refuses, or does not speak HTTP.
    """
    authority = authority_of(destination).encode()
    fields = [(b"Host", authority), *proxy_authorization(proxy)]
    lines = [b"CONNECT %b HTTP/1.1" % authority, *(b"%b: %b" % field for field in fields), b"", b""]
    buffer.outgoing += b"\r\n".join(lines)
    while not (end := _END_OF_HEAD.search(buffer.incoming)):
        if len(buffer.incoming) > MAX_RESPONSE:
            raise WireError(Failure.PROXY_PROTOCOL, "the response is too long")
        yield
    status, reason = _ConnectResponse().read((yield from buffer.read(end.end())))
    if not 200 <= status < 300:
        raise WireError(_refusal(status), f"{status} {reason}".strip())


class _ConnectResponse:
    """The head of the response to CONNECT, whose length fields mean nothing."""

    def __init__(self) -> None:
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def read(self, head: bytes) -> tuple[int, str]:
        """Return status and reason."""
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_chunked_length=True)
        try:
            parser.feed_data(head)
        except httptools.HttpParserError as exc:
            raise WireError(Failure.PROXY_PROTOCOL, words_of(exc)) from None
        return parser.get_status_code(), self._reason.decode("latin-1")


def _refusal(status: int) -> Failure:
    if status == 407:
        return Failure.PROXY_AUTH
    if status >= 500:
        return Failure.PROXY_UNREACHABLE
    return Failure.PROXY_REFUSED if status >= 400 else Failure.PROXY_PROTOCOL


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
