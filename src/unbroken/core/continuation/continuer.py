"""The state of continuing over a turn: what the caller has, the request for the rest, and the seams."""

from __future__ import annotations

from collections.abc import Callable

from unbroken.core.continuation.format import Style, Transcript
from unbroken.core.continuation.request import Extension, NotContinuableError, Spent, extension_of, rest_of
from unbroken.core.continuation.seam import Seam
from unbroken.core.continuation.splice import Splice
from unbroken.core.dialect import Call
from unbroken.core.http import Request
from unbroken.core.providers import echoes_at
from unbroken.core.report import SeamReport
from unbroken.core.sse import Event
from unbroken.core.whole_events import WholeEvents
from unbroken.errors import RestOfAnswer

MAX_TEXT = 4 * 1024 * 1024
"""Characters of an answer that can be continued: more is not kept."""


class Continuer:
    """What continuing needs over a turn. It is made only where the policy says so.

    Args:
        request: the request of the first attempt.
        call: the generation call.
        style: the style that the caller has named, ``None`` for the one that is known of the server.
        max_event: cap of one event, in bytes.

    Attributes:
        seams: the seams that were good.
        problem: why the running continuation does not fit, ``""`` if it does so far.
    """

    def __init__(self, request: Request, call: Call, style: Style | None, max_event: int) -> None:
        self.seams: list[SeamReport] = []
        self.problem = ""
        self._request = request
        self._format = call.dialect.continuation()
        self._style = style
        self._max_event = max_event
        self._transcript = self._format.transcript() if self._format else None
        self._spent = Spent()
        self._extension: Extension | None = None
        self._splice: Splice | None = None
        self._attempt = 1
        self._whole_events = WholeEvents(_reading(self._transcript), max_event) if self._transcript else None

    @property
    def request(self) -> Request | None:
        """The request of the next attempt, ``None`` for the first one's."""
        return self._extension.request if self._extension else None

    @property
    def character(self) -> int | None:
        """Where in the text the running attempt continues, ``None`` if it is a first attempt."""
        return len(self._extension.text) if self._extension else None

    def plan(self) -> str:
        """Have the next attempts ask for the rest of what was handed on; return why that is impossible, or ``""``."""
        if self._whole_events and self._whole_events.problem:
            return self._whole_events.problem
        transcript = self._transcript
        try:
            if transcript is None:
                raise NotContinuableError("answers of this dialect cannot be continued by prefix")
            tokens = transcript.deltas if transcript.tokens is None else transcript.tokens
            spent = Spent(self._spent.amount + tokens, self._spent.is_told and transcript.tokens is not None)
            self._extension = extension_of(self._request, self._format, self._style, transcript, spent)
        except NotContinuableError as exc:
            return str(exc)
        self._spent = spent
        transcript.tokens, transcript.deltas = None, 0
        return ""

    def rest(self) -> RestOfAnswer:
        """Return how a program can ask for the rest by itself."""
        transcript = self._transcript
        tokens = 0 if transcript is None else transcript.deltas if transcript.tokens is None else transcript.tokens
        spent = Spent(self._spent.amount + tokens)
        return rest_of(self._request, self._format, self._style, transcript, spent)

    def begin(self, attempt: int) -> None:
        """Begin an attempt, the first or one that continues."""
        self._attempt = attempt
        if self._extension is None or self._transcript is None or self._whole_events is None:
            return
        self._whole_events.drop()
        extension, url = self._extension, self._request.url
        seam = Seam(extension.text, extension.held_back, echoes=echoes_at(url))
        self._splice = Splice(seam, self._transcript.rewriter(), self._max_event)

    def hand_on(self, data: bytes) -> bytes:
        """Take bytes that may be handed on; return those that can be, so that an answer can follow."""
        if self._splice:
            data = self._checked(self._splice, self._splice.hand_on(data))
        return self._whole_events.hand_on(data) if self._whole_events else data

    def end(self) -> bytes:
        """Return what is still to be handed on, at the end of the stream."""
        rest = self._checked(self._splice, self._splice.end()) if self._splice else b""
        return rest if not self._whole_events else self._whole_events.hand_on(rest) + self._whole_events.end()

    def _checked(self, splice: Splice, data: bytes) -> bytes:
        self.problem = splice.problem
        extension = self._extension
        if splice.has_joined and extension and not (self.seams and self.seams[-1].attempt == self._attempt):
            seam = SeamReport(
                attempt=self._attempt,
                character=len(extension.text),
                output_before=self._spent.amount,
                counted="tokens" if self._spent.is_told else "pieces",
            )
            self.seams.append(seam)
        return data


def _reading(transcript: Transcript) -> Callable[[Event], str]:
    """Return what reads the events that were handed on, and says why an answer cannot be continued behind one."""

    def read(event: Event) -> str:
        transcript.read(event)
        return f"it is longer than {MAX_TEXT:,} characters" if transcript.size > MAX_TEXT else ""

    return read
