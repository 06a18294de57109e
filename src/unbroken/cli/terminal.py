"""What the terminal can do, and the live line that says what is being waited for."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from unbroken.drivers.synchronous import Driver

REFRESH = 0.2
"""Seconds between two paintings of the live line."""

_PATIENCE = 0.5
"""Seconds before the live line first appears: a quick answer needs none."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CLEAR = "\r\x1b[2K"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it, on something that understands control sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def dimmed(text: str, stream: TextIO) -> str:
    """The text in a dim colour, where the stream is a terminal and the user has not said ``NO_COLOR``."""
    if not text or not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[2m{text}\x1b[22m"


def harmless(text: str) -> str:
    """The text without control characters: a model or a server must not steer the terminal."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def say(text: str) -> None:
    """One line on stderr, for a person."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class LiveLine:
    """A line on stderr that is painted again and again until it is cleared.

    Args:
        driver: the turn that is waited for.
        provider: whom it was asked of.
    """

    def __init__(self, driver: Driver, provider: str) -> None:
        self._driver = driver
        self._provider = provider
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._painted = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs, or until :meth:`stop`."""
        painter = threading.Thread(target=self._paint, name="unbroken-live-line", daemon=True)
        painter.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Clear it for good."""
        if not self._stopped.is_set():
            with self._lock:
                self._stopped.set()
                self._clear()

    def interrupt(self, text: str) -> None:
        """Print a line of its own in the place of the live line, which then goes on."""
        with self._lock:
            self._clear()
            say(text)

    def text(self, now: float) -> str:
        """What it says: what is waited for, how long, and whether the path answers."""
        waited = now - self._started
        spin = _SPINNER[int(waited / REFRESH) % len(_SPINNER)]
        path = self._driver.path
        if path is None or not path.sent:
            what = f"connecting to {self._provider}"
        else:
            what = f"waiting for {self._provider} to speak"
        number = self._driver.attempt
        attempt = f" · attempt {number}" if number > 1 else ""
        trip = f" · path answers in {path.round_trip * 1000:.0f} ms" if path and path.round_trip is not None else ""
        return f"{spin} {what} · {waited:.0f} s{attempt}{trip}"

    def _paint(self) -> None:
        self._stopped.wait(_PATIENCE)
        while not self._stopped.is_set():
            with self._lock:
                if not self._stopped.is_set():
                    sys.stderr.write(_CLEAR + dimmed(self.text(time.monotonic()), sys.stderr))
                    sys.stderr.flush()
                    self._painted = True
            self._stopped.wait(REFRESH)

    def _clear(self) -> None:
        if self._painted:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._painted = False
