"""The prompt: an argument, or stdin, or both."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
from typing import Any, TextIO

from unbroken.cli.terminal import say
from unbroken.errors import UsageError

PATIENCE = 2.0
"""Seconds before a notice that stdin is being read: a pipe that stays open would look like a hang."""

MAX_STDIN = 64 * 1024 * 1024
"""Bytes that are read from stdin: it may have no end. No provider takes as much."""

_CHUNK = 256 * 1024


def read_prompt(argument: str | None, *, quiet: bool = False) -> str:
    """Read the prompt: stdin first, then the argument, as with ``llm``.

    Args:
        argument: the argument of the command line; ``-`` for stdin alone, even from a terminal.
        quiet: print no notice while waiting for stdin.

    Raises:
        UsageError: both are missing or empty, or one of them is not text, or stdin is longer than :data:`MAX_STDIN`.
    """
    explicit = argument == "-"
    spoken = "" if explicit or argument is None else as_text("the prompt", argument)
    parts = [part for part in (_piped(from_terminal=explicit, quiet=quiet), spoken) if part.strip()]
    if not parts:
        raise UsageError('no prompt: give it as an argument (unbroken run "...") or on stdin')
    return "\n\n".join(parts)


def as_text(name: str, argument: str) -> str:
    """Return an argument of the command line as text, in any locale.

    Raises:
        UsageError: its bytes are not text.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:  # bytes that the locale could not decode; they may still be UTF-8
        try:
            return os.fsencode(argument).decode("utf-8")
        except UnicodeError:
            raise UsageError(f"{name} is not UTF-8 text") from None
    return argument


def _piped(*, from_terminal: bool, quiet: bool) -> str:
    stdin = sys.stdin
    if stdin is None or stdin.closed or (stdin.isatty() and not from_terminal):
        return ""
    notice = threading.Timer(
        PATIENCE, say, ["reading stdin until it ends, as part of the prompt (< /dev/null: leave it out)"]
    )
    notice.daemon = True
    if not quiet and not from_terminal:
        notice.start()
    try:
        return _read(stdin).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(
            f"stdin is not UTF-8 text (byte {exc.start}); convert it first, for example with iconv"
        ) from None
    except OSError as exc:
        if exc.errno == errno.EBADF:  # only open for writing, as nohup leaves it
            return ""
        raise UsageError(f"cannot read stdin: {exc.strerror}") from None
    finally:
        notice.cancel()


def _read(stdin: TextIO) -> bytearray:
    """Read stdin to its end, past its buffer: a buffered read of a terminal would need Ctrl-D twice."""
    raw: Any = getattr(stdin.buffer, "raw", stdin.buffer)  # a test's stream has no raw stream
    data = bytearray()
    while (chunk := raw.read(_CHUNK)) != b"":
        if chunk is None:  # another process made stdin non-blocking, and it is empty
            select.select([raw], [], [])
            continue
        data += chunk
        if len(data) > MAX_STDIN:
            raise UsageError(
                f"stdin goes on after {MAX_STDIN >> 20} MiB, the most that a prompt may have; "
                "give a shorter one, or leave it out with < /dev/null"
            )
    return data
