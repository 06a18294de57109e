"""The terminal: its abilities, and text that is safe to show on it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from unbroken.cli.output import Output
from unbroken.core.patterns import LazyPattern

_CONTROLS = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # line feeds and tabs may stay
    r"\u2028-\u202e\u2066-\u206f\u061c"  # line separators; directions (Unicode Bidirectional Algorithm, section 2)
    r"\u200b\u2060-\u2065\ufeff\u180e\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # without width
    r"\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations; tags, which are text that is not shown
)
"""Invisible characters, and those that control a terminal or the direction of its text; a class of :mod:`re`."""

_MARKS = "\r\u200e\u200f"
"""Characters that are dropped without a trace: text has them for good reasons, such as the end of a line."""

_JOINERS = "\u200c\u200d"
"""ZWNJ and ZWJ: hidden, but needed in many scripts and between emoji."""

_REPLACED = LazyPattern(f"[{_CONTROLS}]")
HIDDEN = LazyPattern(f"[{_CONTROLS}{_MARKS}{_JOINERS}]")
"""Every character that :func:`harmless` may replace or drop."""

_RUN_OF_JOINERS = LazyPattern(f"[{_JOINERS}]+")
_SHAPED = LazyPattern(
    r"[\u0600-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
"""Characters of scripts whose letters change beside a joiner, Arabic and the scripts of India among them."""

_JOINED = LazyPattern(r"[^\W\d_]|[\u0300-\u036f\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]")
"""Letters and emoji, and the marks with which they may end."""

_CLEAR = "\r\x1b[2K"

_PLAIN = str.maketrans("↻·─│✓✗⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "~--|+x**********") | {ord("…"): "..."}


def is_tty(stream: TextIO | None) -> bool:
    """Return whether a stream leads to a terminal of any kind."""
    return stream is not None and stream.isatty()


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal that understands control sequences."""
    unset = "xterm" if "WT_SESSION" in os.environ else "dumb"  # Windows Terminal sets no TERM
    return is_tty(stream) and (os.environ.get("TERM") or unset) != "dumb"


def dimmed(text: str, stream: TextIO | None) -> str:
    """Return the text in a dim colour, if the stream is a terminal and ``NO_COLOR`` is not set."""
    if not text or not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[2m{text}\x1b[22m"


def harmless(text: str) -> str:
    """Return the text without characters by which a model or a server could control the terminal or mislead its reader.

    Control characters, bidirectional controls and characters without width become U+FFFD; see "Trojan Source",
    CVE-2021-42574. Joiners stay where they join letters or emoji.
    """
    return HarmlessText().add(text, last=True)


class HarmlessText:
    """A :func:`harmless` for text that comes in pieces. A joiner at the end of a piece waits for the next one."""

    def __init__(self) -> None:
        self._before = ""
        self._held = ""

    def add(self, piece: str, *, last: bool = False) -> str:
        """Return what can be shown of the text now: all of it after the ``last`` piece."""
        text = self._before + self._held + piece
        end = len(text) if last else len(text.rstrip(_JOINERS))
        self._held = text[end:]
        start, self._before = len(self._before), text[:end][-1:]
        shown = "".join(_checked_joiners(text[:end], start))
        return _REPLACED.sub("\ufffd", shown).translate(dict.fromkeys(map(ord, _MARKS)))


def _checked_joiners(text: str, start: int) -> Iterator[str]:
    """Yield the text from ``start`` on, with U+FFFD for joiners that join nothing."""
    for run in _RUN_OF_JOINERS.finditer(text, start):
        yield text[start : run.start()]
        before, after = text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
        joins = _SHAPED.match(before) or _SHAPED.match(after) or (_JOINED.match(before) and _JOINED.match(after))
        yield run[0] if joins and len(run[0]) == 1 else "\ufffd" * len(run[0])
        start = run.end()
    yield text[start:]


def say(text: str) -> None:
    """Print one line on stderr, for a person."""
    show(f"{text}\n")


def show(text: str) -> None:
    """Print text on stderr, for a person. Ignore errors."""
    stderr = Output(sys.stderr)
    with contextlib.suppress(OSError):
        stderr.write(plain(text, stderr.encoding))


def show_in_place(text: str) -> None:
    """Show a dimmed line on a terminal, in place of the line that the cursor is in; ``""`` clears that one."""
    show(_CLEAR + dimmed(_fitting(text), sys.stderr))


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what is being done, if stderr is a terminal; clear the line in the end."""
    shown = is_terminal(sys.stderr)
    try:
        yield show_in_place if shown else _show_nothing
    finally:
        if shown:
            show_in_place("")


def _show_nothing(text: str) -> None:
    """Do nothing: what replaces a line would be a line of its own in a file."""


def _fitting(text: str) -> str:
    """Return as much text as fits: a line that wraps could not be cleared."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return text[: (columns or 80) - 1]


def plain(text: str, encoding: str) -> str:
    """Return the text with ASCII for its symbols, if the encoding lacks any of its characters."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN)
    return text
