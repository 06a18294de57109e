"""TCP's own knowledge of a path: what it has sent and nobody has acknowledged.

Linux tells it (``TCP_INFO``, linux/tcp.h, ``struct tcp_info``). Where a system does not, nothing is known.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

_OPTION: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None  # others differ

_INFO = struct.Struct("=2xBB20xI28xI40xI")
"""``tcpi_retransmits``, ``tcpi_probes``, ``tcpi_unacked``, ``tcpi_last_ack_recv`` (milliseconds) and
``tcpi_total_retrans``, which does not count what could not even leave this machine."""


class TcpState(NamedTuple):
    """The state of one connection.

    Attributes:
        outstanding: whether data or probes of keepalive are unacknowledged.
        acknowledged: seconds since the last acknowledgement.
        retransmissions: a count that grows whenever something is sent again, or an unanswered probe.
    """

    outstanding: bool
    acknowledged: float
    retransmissions: int


def tcp_state(sock: socket.socket) -> TcpState | None:
    """Return what TCP knows; ``None`` where the system does not tell."""
    if _OPTION is None:
        return None
    try:
        timeouts, probes, unacknowledged, last, segments = _INFO.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, _OPTION, _INFO.size)
        )
    except (OSError, struct.error):  # a system that tells less, or nothing
        return None
    return TcpState(bool(probes or unacknowledged), last / 1000, timeouts + probes + segments)
