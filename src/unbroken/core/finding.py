"""A finding: what is wrong with a path, or known of it, and what to do about it."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found out, for a person and for a program.

    Attributes:
        code: stable name for programs, in words joined by underscores.
        text: what was found, in a sentence. No keys, no content, no credentials of a URL.
        next: what to do about it; ``""`` where there is nothing to do.
    """

    code: str
    text: str
    next: str = ""
