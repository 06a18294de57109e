"""An answer of numbered words, so that a program's output shows which of them it took, and how often."""

from __future__ import annotations

import re

COUNT = 24
"""How many words the answer has."""

NUMBERS = tuple(range(1, COUNT + 1))
"""The numbers of the whole answer, in order."""

TEXT = " ".join(f"word{number:02}of{COUNT}" for number in NUMBERS)
"""The answer. Each word is the same length, with its number in it; no program prints one by chance."""

_WORD = re.compile(rf"word(\d\d)of{COUNT}")


def numbers_in(text: str) -> tuple[int, ...]:
    """Return the numbers of the answer's words in a text, in order; whatever stands between them is ignored."""
    return tuple(int(number) for number in _WORD.findall(text))
