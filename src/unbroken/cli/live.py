"""The live line: shows on a terminal what is being waited for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from unbroken.cli.terminal import say, show_in_place
from unbroken.client.synchronous import TurnStream
from unbroken.core.failures import Phase
from unbroken.core.report import Progress

REFRESH = 0.2
"""Seconds between two updates of the live line."""

SUSPICIOUS = 3.0
"""Seconds without an answer to a PING after which that is shown."""

_PATIENCE = 0.5
"""Seconds before the live line first appears: a quick answer needs none."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class LiveLine:
    """A line on stderr that is updated until it is cleared.

    Args:
        turn: the turn that is waited for.
        provider: name of the provider.
    """

    def __init__(self, turn: TurnStream, provider: str) -> None:
        self._turn = turn
        self._provider = provider
        self._started = time.monotonic()
        self._pause_ends = 0.0
        self._by = ""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        self._painted = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line while the block runs, or until :meth:`stop`."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def start(self) -> None:
        """Show the line, unless it is shown already. The cursor must be at the start of a line."""
        if self._stopped.is_set():
            self._stopped = threading.Event()
            threading.Thread(target=self._paint, args=[self._stopped], name="unbroken-live-line", daemon=True).start()

    def stop(self) -> None:
        """Clear the line."""
        if not self._stopped.is_set():
            with self._lock:
                self._stopped.set()
                self._clear()

    def interrupt(self, text: str) -> None:
        """Print a line instead of the live line, which is then shown again."""
        with self._lock:
            self._clear()
            say(text)

    def pause(self, seconds: float, path: str = "") -> None:
        """Show that the next attempt starts in this many seconds, and the path that it takes if that is another one."""
        self._pause_ends = time.monotonic() + seconds
        self._by = path or self._by

    def text(self, now: float) -> str:
        """Return the text of the line: what is waited for, how long, and whether the path answers."""
        progress = self._turn.progress
        waited = now - self._started
        spinner = _SPINNER[int(waited / REFRESH) % len(_SPINNER)]
        parts = [f"{spinner} {self._waits_for(progress, now)}", f"{waited:.0f} s"]
        if progress.attempt > 1:
            parts.append(f"attempt {progress.attempt}{f' by {self._by}' if self._by else ''}")
        return " · ".join(parts + _path(progress))

    def _waits_for(self, progress: Progress, now: float) -> str:
        if now < self._pause_ends:
            return f"next attempt in {self._pause_ends - now:.0f} s"
        if not progress.sent:
            return f"connecting to {self._provider}"
        waiting = progress.phase in (Phase.CONNECT, Phase.HEADERS, Phase.PRELUDE)
        return f"waiting for {self._provider} to speak" if waiting else f"{self._provider} is answering"

    def _paint(self, stopped: threading.Event) -> None:
        stopped.wait(_PATIENCE)
        while not stopped.is_set():
            with self._lock:
                if not stopped.is_set():
                    show_in_place(self.text(time.monotonic()))
                    self._painted = True
            stopped.wait(REFRESH)

    def _clear(self) -> None:
        if self._painted:
            show_in_place("")
            self._painted = False


def _path(progress: Progress) -> list[str]:
    """Return the state of the path: a suspicion, an unanswered PING, a round trip, or the seconds since the last byte.

    A PING is answered by the nearest HTTP/2 hop, which need not be the provider.
    """
    if not progress.sent:
        return []
    if progress.suspicion:
        return [progress.suspicion]
    if progress.unanswered is not None and progress.unanswered >= SUSPICIOUS:
        return [f"no answer from the path for {progress.unanswered:.0f} s, still waiting"]
    if progress.round_trip is not None:
        often = f", pinged every {progress.lowered_ping:.2g} s" if progress.lowered_ping else ""
        return [f"the nearest hop answers in {progress.round_trip * 1000:.0f} ms{often}"]
    return [f"silent for {progress.silent:.0f} s"] if progress.silent >= 1 else []
