"""The terminal: its abilities, and text that is safe to show on it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TextIO

from unbroken.cli.output import Output

# Line feeds and tabs may stay. A carriage return is dropped without a mark: it may be half of a line end.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PLAIN = str.maketrans({"↻": "~", "·": "-", "…": "...", **dict.fromkeys("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "*")})


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal that understands control sequences."""
    unset = "xterm" if "WT_SESSION" in os.environ else "dumb"  # Windows Terminal sets no TERM
    return stream is not None and stream.isatty() and (os.environ.get("TERM") or unset) != "dumb"


def dimmed(text: str, stream: TextIO | None) -> str:
    """Return the text in a dim colour, if the stream is a terminal and ``NO_COLOR`` is not set."""
    if not text or not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[2m{text}\x1b[22m"


def harmless(text: str) -> str:
    """Return the text without control characters: a model or a server must not control the terminal."""
    return _CONTROLS.sub("\ufffd", text).replace("\r", "")


def say(text: str) -> None:
    """Print one line on stderr, for a person."""
    show(f"{text}\n")


def show(text: str) -> None:
    """Print text on stderr, for a person. Ignore errors."""
    stderr = Output(sys.stderr)
    try:
        text.encode(stderr.encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN)
    with contextlib.suppress(OSError):
        stderr.write(text)
