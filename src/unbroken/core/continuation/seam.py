"""The seam between a partial text and its continuation: what of the continuation is new, if it fits at all.

A server that is asked to continue a text mostly goes on behind it. Some repeat the whole of it first, some begin anew,
some repeat the end. An exact repetition of the whole text is dropped; a shorter overlap of :data:`OVERLAP` characters
or more breaks the seam; anything shorter cannot be told from a text that repeats itself, and is the model's.
"""

from __future__ import annotations

import enum

OVERLAP = 32
"""Characters from which on a repetition is taken for one of the server, not of the model."""


class SeamState(enum.Enum):
    """What is known of a seam."""

    OPEN = "it cannot be told yet"
    JOINED = "the continuation fits"
    BROKEN = "the continuation does not fit"


class Seam:
    """A check of the beginning of a continuation, character by character: its verdict is the same for any chunks.

    Args:
        text: the text that the caller has.
        held_back: white space at its end that was not sent to the server; the continuation must begin with it.
        echoes: whether the server is known to repeat the whole text first, however short.

    Attributes:
        state: what is known.
        drop: how many characters of the continuation the caller already has; valid once joined.
        problem: why the seam is broken, ``""`` if it is not.
    """

    def __init__(self, text: str, held_back: str = "", *, echoes: bool = False) -> None:
        self.state = SeamState.OPEN
        self.drop = 0
        self.problem = ""
        self._held_back = held_back
        self._text = text
        sent = len(text) - len(held_back)
        self._from_start = _Repetition(text, sent, echoes=echoes)
        self._from_space = _Repetition(text, sent, echoes=False) if held_back else None
        self._matched = 0  # characters of the white space

    def feed(self, piece: str) -> None:
        """Take the next characters of the continuation."""
        for char in piece:
            if self.state is not SeamState.OPEN:
                return
            if self._matched == len(self._held_back):
                if self._from_space:
                    self._from_space.feed(char)
            elif self._matched >= 0:
                self._matched = self._matched + 1 if self._held_back[self._matched] == char else -1
            self._from_start.feed(char)
            self._decide()

    def end(self) -> None:
        """Decide now: no further text will come."""
        if self.state is SeamState.OPEN:
            self._from_start.end()
            if self._from_space:
                self._from_space.end()
            self._decide(is_end=True)

    def _decide(self, *, is_end: bool = False) -> None:
        overlaps = [found.overlap for found in (self._from_start, self._from_space) if found]
        if self._from_start.overlap is _Overlap.WHOLE:
            self._join(len(self._text))
        elif _Overlap.PART in overlaps or _Overlap.WHOLE in overlaps:
            self._break(self._from_start.problem or "it repeats text that came before")
        elif self._matched < 0 and self._from_start.overlap is _Overlap.NONE:
            self._break("it does not begin with the white space at the end of the text")
        elif is_end:
            self._join(max(self._matched, 0))
        elif self._matched == len(self._held_back) and _Overlap.POSSIBLE not in overlaps:
            self._join(self._matched)

    def _join(self, drop: int) -> None:
        self.state, self.drop = SeamState.JOINED, drop

    def _break(self, problem: str) -> None:
        self.state, self.problem = SeamState.BROKEN, problem


class _Overlap(enum.Enum):
    """How a continuation repeats the text before it."""

    POSSIBLE = "it may still turn out to be a repetition"
    NONE = "it is new text"
    PART = "it repeats the end or the beginning, but not the whole"
    WHOLE = "it begins with the whole text"


class _Repetition:
    """The search for a repetition of a text at the beginning of a continuation.

    Args:
        text: the text.
        end: where the part of it ends that the server has.
        echoes: whether a repetition of the whole is expected.
    """

    def __init__(self, text: str, end: int, *, echoes: bool) -> None:
        self.overlap = _Overlap.POSSIBLE
        self.problem = ""
        self._text = text
        self._end = end
        self._echoes = echoes
        self._said: list[str] = []
        self._is_beginning = True
        self._at: int | None = 0  # where the text holds what was said so far, if there is such a place behind its start
        self._repeats_end = False

    def feed(self, char: str) -> None:
        """Take the next character."""
        if self.overlap is not _Overlap.POSSIBLE:
            return
        self._said.append(char)
        self._compare_end(char)
        self._compare_beginning(char)
        if self.overlap is not _Overlap.POSSIBLE or (self._echoes and self._is_beginning):
            return
        if self._repeats_end:
            self._part("it repeats the end of the text")
        elif not self._is_beginning and self._at is None:
            self.overlap = _Overlap.NONE

    def end(self) -> None:
        """Decide now."""
        if self.overlap is not _Overlap.POSSIBLE:
            return
        if self._repeats_end or (self._is_beginning and len(self._said) >= OVERLAP):
            self._part("it begins anew")
        else:
            self.overlap = _Overlap.NONE

    def _part(self, problem: str) -> None:
        self.overlap, self.problem = _Overlap.PART, problem

    def _compare_beginning(self, char: str) -> None:
        if not self._is_beginning:
            return
        said, text = len(self._said), self._text
        if text[said - 1 : said] != char:
            self._is_beginning = False
            if said > OVERLAP:
                self._part("it begins anew")
        elif said == len(text):
            self._is_beginning = False
            if self._echoes or (said >= OVERLAP and not _repeats_itself(text)):
                self.overlap = _Overlap.WHOLE
            elif said >= OVERLAP:
                self._part("it repeats a text that repeats itself: whether the model or the server does cannot be told")

    def _compare_end(self, char: str) -> None:
        """Look for a place behind the start of the text from which on it goes like the continuation, to its end."""
        if self._at is None:
            return
        text, said = self._text, len(self._said)
        if self._at == 0 or text[self._at + said - 1 : self._at + said] != char:
            so_far = "".join(self._said)
            self._at = text.find(so_far, self._at + 1, self._end)
            if self._at < 0 or self._end - self._at < OVERLAP:
                self._at = None
                return
        if not OVERLAP <= said < self._end:
            return
        may_end_here = text[self._end - 1] == char and text[self._end - said] == self._said[0]
        if may_end_here and text.startswith("".join(self._said), self._end - said):
            self._repeats_end = True
            self._at = None


def _repeats_itself(text: str) -> bool:
    """Return whether a text is a repetition of a shorter one, as far as it goes (``abcabca``)."""
    half = len(text) // 2
    head = text[: len(text) - half]
    period = text.find(head, 1)
    while 0 < period <= half:
        if text.startswith(text[period:]):
            return True
        period = text.find(head, period + 1)
    return False
