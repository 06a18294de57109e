"""The route of an attempt: where its path leads, and what PING has done there; and what a cut teaches of PING."""

from __future__ import annotations

import ipaddress

import msgspec

MIN_INTERVAL = 1.0
"""Seconds between two PINGs, whatever is asked for."""


class RouteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an attempt's path. Never holds a credential.

    Attributes:
        host: the upstream's host, with its port unless that is the scheme's own; ``""`` if unknown.
        proxy: URL of the proxy in use, without credentials; ``""`` for none, or if unknown.
        secure: whether it is https.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"``, or ``""`` while it is unknown.
        offers_http2: whether HTTP/2 was offered to the server.
        sends_ping: whether Unbroken's own wire, which can send PING, was in use; a transport that is handed in cannot.
        ping: seconds between two PINGs, 0 for none.
        ping_learned: whether an earlier cut on this path has lowered that.
        ping_refused: whether the server has complained of PING before (``too_many_pings``).
        pings_sent: how many PINGs were sent during the attempt.
        pings_answered: how many of them were answered.
        kept_busy: whether a PING was answered after the last byte of the response (or of the request before it).
        waited: the longest silence in seconds between the request and the response's headers, or its end without any.
    """

    host: str = ""
    proxy: str = ""
    secure: bool = False
    http_version: str = ""
    offers_http2: bool = True
    sends_ping: bool = True
    ping: float = 0.0
    ping_learned: bool = False
    ping_refused: bool = False
    pings_sent: int = 0
    pings_answered: int = 0
    kept_busy: bool = False
    waited: float = 0.0

    @property
    def is_local(self) -> bool:
        """Whether the upstream has a loopback or private address: a server of the user's own."""
        return is_private(self.host)

    def lowered_ping(self, silent: float) -> float | None:
        """Return the interval of PING that a cut after this silence teaches, ``None`` if it teaches none.

        An interval over half of the silence could not keep the path busy; a third of it does. It is lowered once:
        where that was not enough, or the server complained, PING is not what the path lacks.

        Args:
            silent: seconds without a byte of the response, at least :data:`MIN_INTERVAL`.
        """
        if not self.ping or self.ping_learned or self.ping_refused or silent < MIN_INTERVAL:
            return None
        lowered = ping_for(silent)
        return lowered if self.ping > silent / 2 and lowered < self.ping else None


def ping_for(timer: float) -> float:
    """Return the interval of PING that keeps a path busy whose idle timer runs for this many seconds."""
    return max(MIN_INTERVAL, timer / 3)


def is_loopback(host: str) -> bool:
    """Return whether a name or address, without brackets, is this machine's own."""
    address = _address_of(host)
    return address is not None and address.is_loopback


def is_private(host: str) -> bool:
    """Return whether a host, with or without its port, is this machine or an address of a private network."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    address = _address_of(name)
    return address is not None and address.is_private


def _address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a name stands for without a resolver; ``None`` if it stands for none."""
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
