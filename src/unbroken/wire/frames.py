"""The part of HTTP/2 framing that the network stream handles itself: PING and GOAWAY (RFC 9113, section 6).

h2 handles the rest of HTTP/2. But httpcore2 never asks h2 for a PING, and h2 treats a graceful GOAWAY as the end of
the connection, although a stream that it covers goes on (RFC 9113, section 6.8). So PING frames are written between
h2's frames, and GOAWAY frames are taken out before h2 sees them.
"""

from __future__ import annotations

import dataclasses

HEADER = 9
DATA, HEADERS, PING, GOAWAY, CONTINUATION = 0x0, 0x1, 0x6, 0x7, 0x9
ACK = 0x1
MAX_CONTROL_FRAME = 16 * 1024
"""A longer PING or GOAWAY is passed on for h2 to refuse."""

OPAQUE = b"unbroken"
"""The eight bytes that the PINGs sent here carry."""

PING_FRAME = bytes([0, 0, 8, PING, 0, 0, 0, 0, 0]) + OPAQUE

ERROR_NAMES = {
    0x0: "NO_ERROR",
    0x1: "PROTOCOL_ERROR",
    0x2: "INTERNAL_ERROR",
    0x3: "FLOW_CONTROL_ERROR",
    0x4: "SETTINGS_TIMEOUT",
    0x5: "STREAM_CLOSED",
    0x6: "FRAME_SIZE_ERROR",
    0x7: "REFUSED_STREAM",
    0x8: "CANCEL",
    0x9: "COMPRESSION_ERROR",
    0xA: "CONNECT_ERROR",
    0xB: "ENHANCE_YOUR_CALM",
    0xC: "INADEQUATE_SECURITY",
    0xD: "HTTP_1_1_REQUIRED",
}
"""The names of error codes (RFC 9113, section 7)."""


def error_name(code: int) -> str:
    """Return the name of an HTTP/2 error code."""
    return ERROR_NAMES.get(code, f"0x{code:x}")


@dataclasses.dataclass(frozen=True, slots=True)
class GoAway:
    """A GOAWAY frame: the server takes no further streams.

    Attributes:
        last_stream: the highest stream that the server has processed or will.
        error: name of the error code; ``NO_ERROR`` for a graceful shutdown.
    """

    last_stream: int
    error: str


class Inbound:
    """A filter of the frames that arrive: takes out GOAWAY and the answers to PING, and records them.

    Attributes:
        pongs: how many PINGs sent here have been answered.
        goaway: the last GOAWAY, if one came.
        idle: how many frames came that carry nothing of a response: PING, SETTINGS, empty DATA and their like.
    """

    def __init__(self) -> None:
        self.pongs = 0
        self.goaway: GoAway | None = None
        self.idle = 0
        self._held = b""
        self._passing = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire; return those for h2."""
        out = bytearray()
        data = self._held + data
        at = 0
        while at < len(data):
            if self._passing:
                taken = min(self._passing, len(data) - at)
                out += data[at : at + taken]
                self._passing -= taken
                at += taken
                continue
            length = self._frame(data, at)
            if length is None:
                break
            if length:
                at += length
        self._held = data[at:]
        return bytes(out)

    def _frame(self, data: bytes, at: int) -> int | None:
        """Look at the frame at ``at``; return how many bytes of it to leave out, or ``None`` to wait for more."""
        if len(data) - at < HEADER:
            return None
        size = HEADER + int.from_bytes(data[at : at + 3])
        kind, flags = data[at + 3], data[at + 4]
        self.idle += size == HEADER or kind not in (DATA, HEADERS, CONTINUATION)
        if kind not in (PING, GOAWAY) or size > MAX_CONTROL_FRAME:
            self._passing = size
            return 0
        if len(data) - at < size:
            return None
        payload = data[at + HEADER : at + size]
        if kind == GOAWAY and len(payload) >= 8:
            self.goaway = GoAway(int.from_bytes(payload[:4]) & 0x7FFFFFFF, error_name(int.from_bytes(payload[4:8])))
            return size
        if kind == PING and flags & ACK and payload == OPAQUE:
            self.pongs += 1
            return size  # h2 did not send this PING, so its answer is not for h2
        self._passing = size
        return 0
