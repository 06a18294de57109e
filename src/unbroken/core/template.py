"""The shape that most events of a stream share: they differ in nothing but the piece of text that each brings.

What stands inside a JSON string cannot finish, settle, end or fail an attempt. So an event that is one in which nothing
notable was found, but for such a piece of text, need not be searched: to compare its bytes costs a fifth of that.
"""

from __future__ import annotations

import re
from typing import Any

from unbroken.core.payload import json_object
from unbroken.core.sse import parse

_TEXT_FIELDS = ("content", "text", "delta", "reasoning", "reasoning_content", "thinking", "arguments", "partial_json")
"""Fields of any dialect whose value is the model's text, in which no dialect looks for anything else."""

_FIELD = re.compile(rb'"(?:%b)"\s*:\s*"' % "|".join(_TEXT_FIELDS).encode())
"""Matches such a field, up to the beginning of its text."""

_SAMPLE = "unbroken sample"

_BACKSLASH = ord("\\")

MAX_LESSONS = 8
"""How often a shape is taken that does not last: in some streams every event has a number of its own."""


class Template:
    """The shape of the events of one stream, once one was learned: what stands before and after the text."""

    def __init__(self) -> None:
        self._start = self._end = b""
        self._lines = 0
        self._lessons = MAX_LESSONS

    def covers(self, blocks: bytes) -> bool:
        """Return whether whole blocks, with LF alone, are all of the learned shape."""
        start, end = self._start, self._end
        if not start:
            return False
        at = count = 0
        while at < len(blocks):
            if not blocks.startswith(start, at):
                return False
            quote = blocks.find(b'"', at + len(start))
            if blocks[quote - 1] == _BACKSLASH or not blocks.startswith(end, quote):
                return False
            at, count = quote + len(end), count + 1
        return blocks.count(b"\n") == count * self._lines  # a string has none

    def learn(self, blocks: bytes) -> None:
        """Take the shape of the first of some whole blocks, in which nothing notable was found."""
        if not self._lessons:
            return
        self._lessons -= 1
        block = blocks.partition(b"\n\n")[0] + b"\n\n"
        texts = [(found.end(), block.find(b'"', found.end())) for found in _FIELD.finditer(block)]
        since, until = max(texts, key=lambda text: text[1] - text[0], default=(0, 0))
        start, end = block[:since], block[until:]
        if until > 0 and block[until - 1] != _BACKSLASH and _is_text(start + _SAMPLE.encode() + end):
            self._start, self._end, self._lines = start, end, (start + end).count(b"\n")


def _is_text(block: bytes) -> bool:
    """Return whether the sample in a block is the value of a field for text in the JSON of its event."""
    events = list(parse(block))
    return len(events) == 1 and _has_sample(json_object(events[0].data))


def _has_sample(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_sample, value))
    if not isinstance(value, dict):
        return False
    return any((name in _TEXT_FIELDS and item == _SAMPLE) or _has_sample(item) for name, item in value.items())
