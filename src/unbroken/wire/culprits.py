"""Names for the failures on a path with a proxy: which hop failed, in a sentence that names it.

A connection through a proxy passes several steps. The same end of a connection means something else in each: that the
proxy is not there, that it speaks another protocol, or that it cannot reach the server.
"""

from __future__ import annotations

from typing import NamedTuple

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.connection import SAMPLE, Step
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination, authority_of

PROMPT = 5.0
"""Seconds; a proxy that closes sooner without an answer did not wait for a server."""


class SpokenProtocol(NamedTuple):
    """A protocol, as its first bytes show it.

    Attributes:
        words: what came, for a person.
        scheme: the scheme of a proxy that speaks it, ``""`` if none does.
    """

    words: str
    scheme: str = ""


HTTP = SpokenProtocol("HTTP", "http")
PAGE = SpokenProtocol("an HTML page")

_PROTOCOLS: tuple[tuple[bytes, SpokenProtocol], ...] = (
    (b"HTTP/", HTTP),
    (b"\x15\x03", SpokenProtocol("a TLS alert", "https")),
    (b"\x16\x03", SpokenProtocol("TLS", "https")),
    (b"\x05", SpokenProtocol("SOCKS5", "socks5h")),
    (b"\x00\x5a", SpokenProtocol("SOCKS4")),
    (b"\x00\x5b", SpokenProtocol("SOCKS4")),
    (b"SSH-", SpokenProtocol("an SSH server's greeting")),
    (b"220", SpokenProtocol("a mail or FTP server's greeting")),
    (b"<", PAGE),
)

_UNKNOWN = SpokenProtocol("something else")


def protocol_of(data: bytes) -> SpokenProtocol:
    """Return what the first bytes of an answer look like. None of them are quoted: they may be anything."""
    start = data.lstrip(b" \t\r\n")[:SAMPLE]
    found = (spoken for prefix, spoken in _PROTOCOLS if start and prefix[: len(start)] == start[: len(prefix)])
    return next(found, _UNKNOWN)


def other_protocol(proxy: Proxy, data: bytes) -> WireError:
    """Return the failure of a proxy whose answer begins with these bytes, which its scheme does not allow."""
    spoken = protocol_of(data)
    fitting = spoken.scheme and spoken.scheme != proxy.scheme
    hint = f": write {spoken.scheme}://{proxy.address}" if fitting else ""
    return WireError(Failure.PROXY_PROTOCOL, f"it answered with {spoken.words}{hint}")


class Way(NamedTuple):
    """How far a connection through a proxy has come.

    Attributes:
        proxy: the proxy.
        destination: where the connection leads.
        step: its present step.
        sample: the first bytes that came in this step.
        after: seconds since the exchange began.
    """

    proxy: Proxy
    destination: Destination
    step: Step
    sample: bytes = b""
    after: float = 0.0

    @property
    def target(self) -> str:
        """Host and port of the server."""
        return authority_of(self.destination)

    @property
    def may_lack_server(self) -> bool:
        """Whether nothing has shown that the server was reached: neither TLS with it, nor a byte, nor time."""
        return self.destination.scheme == "http" and not self.sample and self.after < PROMPT


def named(error: WireError, way: Way) -> WireError:
    """Return a failure under the name of the hop that caused it.

    Args:
        error: the failure; what the handshake with a proxy has raised has a detail without the proxy's name.
        way: where it happened.
    """
    return _NAMES[way.step](error, way)


def _dialled(error: WireError, way: Way) -> WireError:
    failure, detail, title = error.failure, error.detail, way.proxy.title
    match failure:
        case Failure.PROXY_UNREACHABLE:
            return WireError(failure, f"cannot connect to {title}: {detail}")
        case Failure.NO_SUCH_HOST | Failure.DNS_TEMPORARY:
            return WireError(failure, f"that of {title}")
        case Failure.CONNECT_TIMEOUT | Failure.NOT_CONNECTED:
            return WireError(failure, f"{detail}, to {title}")
    return error


def _in_proxy_tls(error: WireError, way: Way) -> WireError:
    match error.failure:
        case Failure.TLS_MISMATCH:
            return _in_handshake(other_protocol(way.proxy, way.sample), way)
        case Failure.CERTIFICATE:
            return WireError(error.failure, f"{error.detail}: that of {way.proxy.title}")
    return _in_handshake(error, way)


def _in_handshake(error: WireError, way: Way) -> WireError:
    failure, detail, title, target = error.failure, error.detail, way.proxy.title, way.target
    match failure:
        case Failure.CLOSED | Failure.RESET | Failure.TLS_FAILED:
            return _closed(way)
        case Failure.CONNECT_TIMEOUT:
            why = f"accepted, then said nothing: wrong scheme, or it cannot reach {target}"
            return WireError(failure, f"{detail}: {title} {why}")
        case Failure.PROXY_CANNOT_REACH:
            return WireError(failure, f"{title} cannot reach {target}: {detail}")
        case Failure.PROXY_REFUSED:
            return WireError(failure, f"{title} refuses to connect to {target}: {detail}")
        case Failure.PROXY_AUTH:
            what = "refuses user and password" if way.proxy.auth else "asks for user and password"
            return WireError(failure, f"{title} {what}: {detail}")
        case Failure.PROXY_PROTOCOL:
            return WireError(failure, f"{title} speaks another protocol: {detail}")
        case Failure.CAPTIVE_PORTAL:
            return WireError(failure, f"{title} answers as a captive portal does: {detail}; log in with a browser")
    return error


def _in_server_tls(error: WireError, way: Way) -> WireError:
    failure, detail, title, target = error.failure, error.detail, way.proxy.title, way.target
    match failure:
        case Failure.CLOSED | Failure.RESET | Failure.TLS_FAILED:
            why = f"accepted, then closed the tunnel to {target}: it cannot reach it, or TLS is refused there"
            return WireError(Failure.PROXY_CLOSED, f"{title} {why}")
        case Failure.TLS_MISMATCH if protocol_of(way.sample) is PAGE:
            why = "answers with an HTML page instead of a tunnel: it is no proxy, or a captive portal"
            return WireError(Failure.PROXY_PROTOCOL, f"{title} {why}")
        case Failure.TLS_MISMATCH:
            return WireError(failure, f"{detail}: {protocol_of(way.sample).words} came through {title}")
        case Failure.CERTIFICATE:
            return WireError(failure, f"{detail}: that of {target}, through {title}")
        case Failure.CONNECT_TIMEOUT:
            return WireError(failure, f"{detail}: {title} opened a tunnel to {target}, and nothing came through it")
    return error


def _after_sending(error: WireError, way: Way) -> WireError:
    match error.failure:
        case Failure.PROXY_AUTH:
            return _in_handshake(error, way)
        case Failure.BROKEN_FRAMING if way.destination.forwards and protocol_of(way.sample) is not HTTP:
            return _in_handshake(other_protocol(way.proxy, way.sample), way)
        case Failure.CLOSED | Failure.RESET if way.may_lack_server:
            return WireError(error.failure, _closed(way).detail)
    return error


def _closed(way: Way) -> WireError:
    why = f"accepted, then closed: wrong scheme, or it cannot reach {way.target}"
    return WireError(Failure.PROXY_CLOSED, f"{way.proxy.title} {why}")


_NAMES = {
    Step.DIAL: _dialled,
    Step.PROXY_TLS: _in_proxy_tls,
    Step.HANDSHAKE: _in_handshake,
    Step.SERVER_TLS: _in_server_tls,
    Step.OPEN: _after_sending,
}
