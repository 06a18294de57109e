"""The journal's file: writing and reading it with SQLite, bounded in rows and in age.

Several processes write at once: each write is one short transaction, and waits for the others' (busy timeout). There is
no write-ahead log, which does not work in a home folder on a network (SQLite docs, "Write-Ahead Logging").
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from unbroken.journal.entry import DAY, AnsweredCount, JournalContents, JournalEntry

MOST = 5000
"""How many entries are kept: the newest."""

SHARE = 1000
"""How many of them may be of one failure on one path: an outage must not push the others out."""

MOST_COUNTS = 5000
"""How many counts of answered attempts are kept."""

AGE = 90 * DAY
"""Seconds for which entries and counts are kept."""

BUSY = 1.0
"""Seconds for which a transaction waits for another process's, which takes a few milliseconds."""

VERSION = 1
"""Version of the tables, as ``PRAGMA user_version``. A file of another version is left as it is."""

_TABLES = """
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, at REAL, face TEXT, failure TEXT, phase TEXT, status INTEGER, elapsed REAL, silent REAL,
    http_version TEXT, lowered_ping REAL, path_source TEXT, host TEXT, proxy TEXT, secure INTEGER,
    offers_http2 INTEGER, sends_ping INTEGER, ping REAL, ping_learned INTEGER, ping_refused INTEGER,
    pings_sent INTEGER, pings_answered INTEGER, kept_busy INTEGER, waited REAL
);
CREATE TABLE IF NOT EXISTS answered (
    day INTEGER, host TEXT, proxy TEXT, http_version TEXT, attempts INTEGER,
    PRIMARY KEY (day, host, proxy, http_version)
);
"""

_OF_ATTEMPT = ("failure", "phase", "status", "elapsed", "silent", "http_version", "lowered_ping", "path_source")
_OF_ROUTE = (
    *("host", "proxy", "secure", "offers_http2", "sends_ping", "ping", "ping_learned", "ping_refused"),
    *("pings_sent", "pings_answered", "kept_busy", "waited"),
)
_COLUMNS = ("at", "face", *_OF_ATTEMPT, *_OF_ROUTE)

_INSERT = f"INSERT INTO attempts ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM attempts ORDER BY at, id"
_COUNT = "INSERT INTO answered VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts"
_DROP_SHARE = (
    "DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE failure = ? AND host = ? AND proxy = ?"
    f" ORDER BY id DESC LIMIT -1 OFFSET {SHARE})"
)

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class OtherVersion(sqlite3.Error):
    """The file is of another version of Unbroken."""


def write(path: Path, entries: Sequence[JournalEntry], answered: Sequence[AnsweredCount], now: float) -> None:
    """Add entries and counts, and drop what is too much or too old. A corrupt file is set aside.

    Args:
        path: the file; it and its folder are made where they are missing, for this user alone.
        entries: the entries.
        answered: the counts, which are added to those of the same day and path.
        now: seconds since the epoch.

    Raises:
        OSError: the file cannot be made.
        sqlite3.Error: it cannot be written, or is of another version.
    """
    _make_private(path)
    try:
        _write(path, entries, answered, now)
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in _CORRUPT:
            raise
        path.replace(path.with_name(f"{path.name}.corrupt"))
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # SQLite would apply it to the next file
        _make_private(path)
        _write(path, entries, answered, now)


def read(path: Path) -> JournalContents:
    """Return what is in the journal; nothing, without a problem, if there is none. Rows without sense are left out.

    Nothing is written. A file that other processes hold locked is a problem, as is one of another version.
    """
    try:
        if not path.exists():
            return JournalContents()
        with _opened(path) as connection:
            version = _version(connection)
            if version == 0:  # made, and not yet written
                return JournalContents()
            if version != VERSION:
                return JournalContents(problem="it is of another version of Unbroken")
            rows = connection.execute(_SELECT).fetchall()
            counts = connection.execute("SELECT * FROM answered ORDER BY day").fetchall()
    except (sqlite3.Error, OSError) as exc:
        return JournalContents(problem=str(exc))
    return JournalContents(
        [entry for row in rows if (entry := _entry(row))], [count for row in counts if (count := _answered(row))]
    )


def _make_private(path: Path) -> None:
    """Make the file, and let this user alone read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Opening and closing a file that exists would release the locks that SQLite holds on it in this process.
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that exists; transactions are begun and ended explicitly."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)
    with contextlib.closing(connection):
        yield connection


def _write(path: Path, entries: Sequence[JournalEntry], answered: Sequence[AnsweredCount], now: float) -> None:
    with _opened(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # a power cut may corrupt the file, which is then set aside
        connection.execute("BEGIN IMMEDIATE")  # closing rolls back what was not committed
        if _version(connection) == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif _version(connection) != VERSION:
            raise OtherVersion("the journal is of another version of Unbroken")
        connection.executemany(_INSERT, map(_row, entries))
        connection.executemany(_COUNT, map(msgspec.structs.astuple, answered))
        _drop_old(connection, entries, now)
        connection.execute("COMMIT")


def _drop_old(connection: sqlite3.Connection, entries: Sequence[JournalEntry], now: float) -> None:
    """Drop what is older than :data:`AGE`, and the oldest of what is too much."""
    kinds = {(entry.attempt.failure, entry.attempt.route.host, entry.attempt.route.proxy) for entry in entries}
    connection.executemany(_DROP_SHARE, kinds)
    connection.execute("DELETE FROM attempts WHERE at < ?", (now - AGE,))
    connection.execute("DELETE FROM answered WHERE day < ?", (int(now - AGE) // DAY,))
    for table, order, most in (("attempts", "id", MOST), ("answered", "day", MOST_COUNTS)):
        connection.execute(
            f"DELETE FROM {table} WHERE rowid IN"
            f" (SELECT rowid FROM {table} ORDER BY {order} DESC LIMIT -1 OFFSET {most})"
        )


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _row(entry: JournalEntry) -> tuple[Any, ...]:
    attempt, route = entry.attempt, entry.attempt.route
    return (
        entry.at,
        entry.face,
        *(getattr(attempt, name) for name in _OF_ATTEMPT),
        *(getattr(route, name) for name in _OF_ROUTE),
    )


def _entry(row: tuple[Any, ...]) -> JournalEntry | None:
    fields = dict(zip(_COLUMNS, row, strict=True))
    route = {name: fields[name] for name in _OF_ROUTE} | {"http_version": fields["http_version"]}
    attempt = {name: fields[name] for name in _OF_ATTEMPT} | {"number": 0, "route": route}
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(
            {"at": fields["at"], "face": fields["face"], "attempt": attempt}, JournalEntry, strict=False
        )
    return None


def _answered(row: tuple[Any, ...]) -> AnsweredCount | None:
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(dict(zip(AnsweredCount.__struct_fields__, row, strict=True)), AnsweredCount)
    return None
