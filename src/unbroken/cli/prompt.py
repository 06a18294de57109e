"""The prompt: an argument, or stdin, or both."""

from __future__ import annotations

import sys

from unbroken.errors import UsageError


def read_prompt(argument: str | None) -> str:
    """The prompt: what stands on stdin first, then the argument, as with ``llm``.

    Raises:
        UsageError: neither is there, or stdin is not UTF-8 text.
    """
    parts = [part for part in (_piped(), argument or "") if part.strip()]
    if not parts:
        raise UsageError('no prompt: give it as an argument (unbroken run "...") or on stdin')
    return "\n\n".join(parts)


def _piped() -> str:
    stdin = sys.stdin
    if stdin is None or stdin.closed or stdin.isatty():
        return ""
    try:
        return stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as exc:
        raise UsageError(f"stdin is not UTF-8 text (byte {exc.start}); convert it first, for example with iconv") from None
    except OSError:  # such as a stdin that is only open for writing
        return ""
