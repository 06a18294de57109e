"""The search for events that finish, settle, end or are an error, among those that bring nothing but output.

After the first output only blocks in which it finds something are parsed, so it runs over every byte. Hardly any block
holds one of the literals: to search for each of them is twice as fast as for a pattern of alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unbroken.core.dialects.common.error_shapes import ERROR_KEYS

COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
"""Matches between the name of a field and its value; JSON may be broken over several ``data`` lines."""

_RARE = (b"err", b'code"', b'msg"', b'essage"', b'base_resp"', b'success"', b'detail"', b"[DONE]")
"""Literals of which one is in every error and terminator: see :data:`ERROR_KEYS`."""


class Notable:
    """A search by literals first, with the interface of a pattern.

    In a JSON string quotation marks and line ends are escaped, so patterns with them match the protocol, never the
    model's words.

    Args:
        often: patterns for fields that nearly every event has, mostly with another value. Each begins with a literal.
        seldom: a pattern for the rest. In both, ``%(c)s`` is :data:`COLON` and ``%(keys)s`` :data:`ERROR_KEYS`.
        rare: literals of which one, or one of an error or a terminator, is in every match of ``seldom``.
    """

    def __init__(self, often: Sequence[bytes], seldom: bytes, rare: Sequence[bytes] = ()) -> None:
        self._often = [re.compile(pattern % {b"c": COLON}).search for pattern in often]
        self._seldom = re.compile(seldom % {b"c": COLON, b"keys": ERROR_KEYS}).search
        self._rare = [re.compile(re.escape(literal)).search for literal in (*_RARE, *rare)]  # faster than ``in``

    def search(self, data: bytes, since: int = 0) -> object:
        """Return something true if there is a match at ``since`` or later, else ``None``."""
        for search in self._often:
            if found := search(data, since):
                return found
        for search in self._rare:
            if search(data, since):
                return self._seldom(data, since)
        return None
