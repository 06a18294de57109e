"""A tally beside the journal: a line for each answered attempt of a turn that lost none.

That is most turns of ``unbroken run``, and none of them is to load SQLite. Lines are appended in one write each, so
that several processes may do it at once; the file is bounded by starting a new one, with the one before it kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from unbroken.journal.entry import AnsweredCount

NAME, BEFORE = "answered.jsonl", "answered.before.jsonl"

MOST = 128 * 1024
"""Bytes of a file after which a new one is started; more than a thousand lines."""


def note(journal: Path, counts: Sequence[AnsweredCount]) -> None:
    """Append counts.

    Args:
        journal: path of the journal.
        counts: the counts.

    Raises:
        OSError: the file cannot be written.
    """
    file = journal.with_name(NAME)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"".join(msgspec.json.encode(count) + b"\n" for count in counts))
        is_full = os.fstat(descriptor).st_size > MOST
    finally:
        os.close(descriptor)
    if is_full:
        file.replace(journal.with_name(BEFORE))


def read(journal: Path) -> list[AnsweredCount]:
    """Return the counts, oldest first; those that can be read."""
    counts = []
    for name in (BEFORE, NAME):
        with contextlib.suppress(OSError), journal.with_name(name).open("rb") as file:
            for line in file.read(2 * MOST).splitlines():
                with contextlib.suppress(msgspec.DecodeError):
                    counts.append(msgspec.json.decode(line, type=AnsweredCount))
    return counts
