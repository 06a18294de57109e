"""Positions as ids of events, by which a browser's ``EventSource`` goes on (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import re

from unbroken.relay.client_request import ClientRequest
from unbroken.relay.headers import RESUMABLE_FIELD, values

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""The end of a line; a CR behind which nothing has come may be half of one."""

_MAX_LINE = 64 * 1024
"""How many bytes of a line are held until its end has come; a longer one is handed on as it comes."""


class EventIds:
    """Gives each event of a stream its position as its id, in the place of the ids and comments that it has.

    Args:
        position: where the stream begins.
    """

    def __init__(self, position: int = 0) -> None:
        self._position = position
        self._rest = b""
        self._in_long_line = False
        self._has_fields = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the stream; return what is sent in their place."""
        self._rest += data
        ready, at = bytearray(), 0
        for end in _LINE_END.finditer(self._rest):
            line, at = self._rest[at : end.start()], end.end()
            self._position += len(line) + len(end[0])
            ready += self._sent_for(line)
            self._in_long_line = False
        self._rest = self._rest[at:]
        if len(self._rest) > _MAX_LINE or (self._in_long_line and self._rest != b"\r"):
            ready += self.end()
            self._in_long_line = self._has_fields = True
        return bytes(ready)

    def end(self) -> bytes:
        """Return what is held: the stream has ended."""
        rest, self._rest = self._rest, b""
        self._position += len(rest)
        return rest

    def _sent_for(self, line: bytes) -> bytes:
        """Return what is sent for a line, or for the rest of a long one."""
        if self._in_long_line:
            return line + b"\n"
        if not line:
            had, self._has_fields = self._has_fields, False
            return b"id: %d\n\n" % self._position if had else b""
        if line.startswith(b":"):
            return b": unbroken\n"  # no blank line, at which some decoders dispatch an event without data
        if line == b"id" or line.startswith(b"id:"):
            return b""
        self._has_fields = True
        return line + b"\n"


def wants_ids(incoming: ClientRequest) -> bool:
    """Return whether a client asks for ids."""
    return any(value.lower() == b"true" for value in values(incoming.headers, RESUMABLE_FIELD))
