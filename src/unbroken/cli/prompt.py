"""The prompt: an argument, or stdin, or both."""

from __future__ import annotations

import errno
import os
import sys
import threading

from unbroken.cli.terminal import say
from unbroken.errors import UsageError

PATIENCE = 2.0
"""Seconds before a notice that stdin is being read: a pipe that stays open would look like a hang."""


def read_prompt(argument: str | None, *, quiet: bool = False) -> str:
    """Read the prompt: stdin first, then the argument, as with ``llm``.

    Args:
        argument: the argument of the command line; ``-`` for stdin alone, even from a terminal.
        quiet: print no notice while waiting for stdin.

    Raises:
        UsageError: both are missing or empty, or one of them is not text.
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
        return stdin.buffer.read().decode("utf-8-sig")
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
