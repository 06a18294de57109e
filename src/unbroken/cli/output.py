"""The standard streams, written without a buffer.

A write that returns is complete, and errors are raised by the write itself: nothing is left for the interpreter to
write, and to complain about, while it exits.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TextIO


class Output:
    """One of the standard streams.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``, which are ``None`` if they were closed from the start.

    Attributes:
        torn: whether a write was interrupted, so that further output makes no sense.
    """

    def __init__(self, stream: TextIO | None) -> None:
        buffer = getattr(stream, "buffer", None)
        self._raw = getattr(buffer, "raw", buffer)  # a test's stream has a buffer but no raw stream
        # Consoles of Windows take UTF-8; Python reports a code page there that lacks the symbols used here.
        self.encoding = "utf-8" if sys.platform == "win32" else getattr(stream, "encoding", None) or "utf-8"
        self.torn = False

    def write(self, text: str) -> None:
        """Write text; characters that the encoding lacks, and halves of surrogate pairs, are written as escapes.

        Raises:
            OSError: it cannot be written.
        """
        self.write_bytes(text.encode(self.encoding, "backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        """Write bytes.

        Raises:
            OSError: they cannot be written.
        """
        if self._raw is None:
            return
        left = memoryview(data)
        self.torn = True
        while left:
            if written := self._raw.write(left):
                left = left[written:]
            else:  # another process made stdout non-blocking, and it is full
                select.select([], [self._raw], [])
        self.torn = False


def abandon_stdout() -> None:
    """Discard buffered output, so that the interpreter does not try to write it again while it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
