"""Reading the user's own journal."""

from __future__ import annotations

from unbroken.journal import tally
from unbroken.journal.entry import JournalContents
from unbroken.journal.place import journal_path


def read_own(face: str = "") -> JournalContents:
    """Return what is in the user's journal; a journal that cannot be read is a problem of the result, and no error.

    Args:
        face: whose attempts are wanted: ``run``, ``exec`` or ``relay``; ``""`` for everybody's.
    """
    path = journal_path()
    if path is None:
        return JournalContents(problem="this user has no home folder")
    try:
        from unbroken.journal.database import read
    except ImportError:
        return JournalContents(problem="this Python was built without SQLite")
    contents = read(path)
    return contents._replace(
        entries=[entry for entry in contents.entries if not face or entry.face == face],
        answered=[*contents.answered, *tally.read(path)],
    )
