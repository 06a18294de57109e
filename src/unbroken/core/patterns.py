"""Regular expressions that are compiled when they are first used.

Compiling the long ones takes milliseconds, at the start of programs of which most never need them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property


class LazyPattern:
    """A regular expression with the methods of :class:`re.Pattern` that are used here.

    Args:
        pattern: the pattern; a mistake in it is found at the first use.
        flags: flags of :mod:`re`.
    """

    def __init__(self, pattern: str, flags: re.RegexFlag = re.NOFLAG) -> None:
        self.pattern = pattern
        self._flags = flags

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern, self._flags)

    def search(self, text: str) -> re.Match[str] | None:
        """See :meth:`re.Pattern.search`."""
        return self.compiled.search(text)

    def match(self, text: str) -> re.Match[str] | None:
        """See :meth:`re.Pattern.match`."""
        return self.compiled.match(text)

    def findall(self, text: str) -> list[tuple[str, ...]]:
        """See :meth:`re.Pattern.findall`; the pattern has at least two groups."""
        return self.compiled.findall(text)

    def finditer(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        """See :meth:`re.Pattern.finditer`."""
        return self.compiled.finditer(text, start)

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        """See :meth:`re.Pattern.sub`."""
        return self.compiled.sub(replacement, text)
