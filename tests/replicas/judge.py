"""Judging what clients got, by what the upstream has sent: each byte of one generation, once, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unbroken.lab.record import RecordedRequest

_GENERATION = re.compile(rb'"id": ?"chatcmpl-lab-(\d+)"')
ERROR = b'data: {"error"'
"""How an event begins by which the relay tells of a failure."""
LAST = b"data: [DONE]\n\n"


@dataclass
class Reading:
    """What one client has read of one turn, from its first byte, in one response or by position in several.

    Attributes:
        prompt: what it asked.
        body: the bytes.
        ended: whether the last response came to its end.
    """

    prompt: str
    body: bytes = b""
    ended: bool = False

    @property
    def generation(self) -> int:
        """Which of the upstream's answers this is, 0 if nothing of it tells that."""
        found = _GENERATION.search(self.body)
        return int(found[1]) if found else 0

    @property
    def is_whole(self) -> bool:
        """Whether the client has reason to take it for a whole answer."""
        return self.ended and self.body.endswith(LAST) and ERROR not in self.body


@dataclass
class Judge:
    """Judges readings.

    Args:
        requests: what the upstream was asked, in order.
    """

    requests: list[RecordedRequest] = field(default_factory=list)

    def fault_of(self, reading: Reading) -> str:
        """Return what is wrong with a reading, ``""`` if nothing is."""
        if reading.ended and not reading.is_whole:
            return f"it ended, and is no whole answer: {reading.body[-80:]!r}"
        if not reading.generation:
            return "" if not reading.body or reading.body.startswith(ERROR) else f"foreign bytes {reading.body[:80]!r}"
        request = self.requests[reading.generation - 1]
        if f'"{reading.prompt}"'.encode() not in request.body:
            return f"a foreign answer, number {reading.generation}"
        return self._fault_in(reading, request.sent)

    def _fault_in(self, reading: Reading, sent: bytes) -> str:
        if reading.is_whole:
            return "" if reading.body == sent else f"called whole, and is not: {_difference(reading.body, sent)}"
        at = reading.body.find(ERROR)
        body = reading.body if at < 0 else reading.body[:at]
        return "" if sent.startswith(body.rstrip(b"\n") if at >= 0 else body) else _difference(body, sent)


def _difference(body: bytes, sent: bytes) -> str:
    at = next((at for at, (one, other) in enumerate(zip(body, sent, strict=False)) if one != other), len(sent))
    return f"byte {at} is {body[at : at + 60]!r}, and was sent as {sent[at : at + 60]!r} ({len(body)} of {len(sent)})"
