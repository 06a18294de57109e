"""What past turns tell, of the user's journal."""

from __future__ import annotations

import time

from unbroken.core.finding import Finding
from unbroken.journal.findings import PastTurns
from unbroken.journal.place import journal_path
from unbroken.journal.reading import read_own


class PastReport:
    """What the user's journal tells.

    Args:
        is_kept: whether the user keeps one.

    Attributes:
        turns: what past turns have met.
        summary: a line for a person.
    """

    def __init__(self, *, is_kept: bool) -> None:
        self.turns = PastTurns((), (), 0.0)
        self._problem = ""
        self.summary = "the journal is turned off"
        if is_kept:
            self._read()

    @property
    def findings(self) -> list[Finding]:
        """The findings, the latest pattern first."""
        if not self._problem:
            return self.turns.findings
        path = journal_path()
        return [
            Finding(
                "journal_unreadable",
                f"the journal of past turns cannot be read: {self._problem}",
                f"remove {path}, or have it written by one version of Unbroken alone" if path else "",
            )
        ]

    def _read(self) -> None:
        contents = read_own()
        self._problem = contents.problem
        self.turns = PastTurns(contents.entries, contents.answered, time.time())
        lost = len(contents.entries)
        self.summary = f"{lost} attempt{'s' * (lost != 1)} lost" if lost else "no attempt was lost"
        if self._problem:
            self.summary = "not known: the journal cannot be read"
