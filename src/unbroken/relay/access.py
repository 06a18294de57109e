"""The access log: a line for each request, for a person or for a machine. No query, no key, no content.

What is asked of the relay itself (its page, its metrics, a browser's preflight) is not noted, unless it is refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import msgspec

from unbroken.core.actions import RetryEvent
from unbroken.drivers.notices import describe
from unbroken.relay.records import Outcome

MAX_TEXT = 500
"""Characters of a path or a detail, at most: whoever sends more wants the log to be long, or torn."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    Attributes:
        time: when it ended, ISO 8601 in UTC.
        id: its name, also in ``x-unbroken-turn``.
        method: of the request.
        path: of the request, without its query.
        upstream: name of the upstream, ``None`` where it went to none.
        dialect: name of the dialect, ``None`` where it was no generation call.
        status: the HTTP status that was sent, ``None`` where none was.
        outcome: how it ended.
        attempts: how many attempts were made upstream.
        retries: how many of them because one was provably not processed.
        replays: how many of them because one was lost.
        lost: what every lost attempt was lost by, as ``failure@phase``.
        elapsed: seconds.
        first_output: seconds until the first of the answer was there, or ``None``.
        bytes_in: bytes of the request's body.
        bytes_out: bytes of the response's body.
        heartbeats: how many heartbeats were sent.
        detail: one line for a person where it failed, or ``""``.
    """

    time: str
    id: str
    method: str
    path: str
    upstream: str | None
    dialect: str | None
    status: int | None
    outcome: Outcome
    attempts: int = 0
    retries: int = 0
    replays: int = 0
    lost: tuple[str, ...] = ()
    elapsed: float = 0.0
    first_output: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    heartbeats: int = 0
    detail: str = ""


class AccessLog:
    """Writes a line for each request, and one for each retry and replay. What it writes can be printed.

    Args:
        write: takes a line without its end.
        as_json: one JSON object a line instead of words.
        quiet: only of what went wrong.
    """

    def __init__(self, write: Callable[[str], None], *, as_json: bool = False, quiet: bool = False) -> None:
        self._write = write
        self._as_json = as_json
        self._quiet = quiet

    def ended(self, entry: Entry) -> None:
        """A request has ended."""
        if self._quiet and entry.outcome in (Outcome.ANSWERED, Outcome.PASSED) and entry.attempts < 2:
            return
        entry = msgspec.structs.replace(entry, path=_plain(entry.path), detail=_plain(entry.detail))
        self._write(msgspec.json.encode(entry).decode() if self._as_json else _in_words(entry))

    def again(self, turn_id: str, event: RetryEvent) -> None:
        """An attempt was lost and another one follows. In JSON the request's own line tells all of it."""
        if not self._as_json:
            self._write(f"{turn_id} ↻ {_plain(describe(event))}")
            if event.advice:
                self._write(f"{turn_id}   {_plain(event.advice)}")


def timestamp() -> str:
    """Now, as the log writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_words(entry: Entry) -> str:
    pieces = [
        f"{entry.id} {entry.method} {entry.path}",
        f"{entry.status or '-'} {entry.outcome}",
        f"{entry.elapsed:.1f} s",
    ]
    if entry.first_output is not None:
        pieces.append(f"first output {entry.first_output:.1f} s")
    if entry.lost:
        pieces.append(f"{entry.attempts} attempt{'s' * (entry.attempts != 1)}, lost {', '.join(entry.lost)}")
    if entry.detail:
        pieces.append(entry.detail)
    return " · ".join(pieces)


def _plain(text: str) -> str:
    """The text, not too long, with escapes for what could end a line or speak to a terminal."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}…"
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}"
