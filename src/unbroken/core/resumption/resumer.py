"""The state of resuming over a turn: the response that runs at the server, and the request that takes it up."""

from __future__ import annotations

from collections.abc import Callable

from unbroken.core.actions import Parting
from unbroken.core.dialect import Call
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import ResumeReport
from unbroken.core.resumption.background import BackgroundRequest
from unbroken.core.resumption.events import ResumableEvents
from unbroken.core.resumption.format import Resumption
from unbroken.core.resumption.refused import RefusedBackgrounds


class Resumer:
    """What resuming needs over a turn. It is made only where the response can be resumed.

    Args:
        request: the request of the caller.
        resumption: how the dialect resumes.
        policy: the limits.
        random: uniform in [0, 1), for jitter.
        background: what makes the response go on at the server, if the caller's request does not.

    Attributes:
        request: the request of the running attempt; ``None`` for the caller's.
        events: the events of the present response.
        is_resuming: whether attempts take up a response that another one asked for.
        loss: how the response's stream was cut when it was last taken up.
        why_not: why it was not taken up after the last cut, ``""`` if it was, or was not cut.
        cancelled: see :attr:`unbroken.core.report.BackgroundReport.cancelled`.
        deleted: likewise.
    """

    def __init__(
        self,
        request: Request,
        resumption: Resumption,
        policy: Policy,
        random: Callable[[], float],
        background: BackgroundRequest | None = None,
    ) -> None:
        self.request: Request | None = None
        self.cancelled: bool | None = None
        self.deleted: bool | None = None
        self._background = background
        self.is_resuming = False
        self.loss = Failure.RESET
        self.why_not = ""
        self._resumes: list[ResumeReport] = []
        self._original = request
        self._resumption = resumption
        self._policy = policy
        self._random = random
        self._attempt = 1
        self._came = 0
        self._in_a_row = 0
        self._position = ""
        self.events = self._new_events()

    def begin(self, attempt: int) -> None:
        """Begin an attempt: one that takes up the response, or else one that asks for another."""
        self.why_not = ""
        if self.is_resuming:
            self._resumes = self.resumes
            self.events.take_up()
            self._position = self.events.position
            self.request = self._resumption.resume(self._original, self.events.response, self._position)
        else:
            self.events, self._in_a_row = self._new_events(), 0
            self.request = self._background.request if self._background else None
        self._attempt, self._came = attempt, self.events.came

    def note_head(self, head: Head) -> None:
        """Take the head of a response. The events of most name it, not the head."""

    def _new_events(self) -> ResumableEvents:
        return ResumableEvents(self._resumption.bookmark(), self._policy.max_event)

    @property
    def resumes(self) -> list[ResumeReport]:
        """Where a stream was taken up, as far as anything came of it."""
        if not (self.is_resuming and self.has_progressed):
            return self._resumes
        return [*self._resumes, ResumeReport(attempt=self._attempt, after=self._position)]

    @property
    def position(self) -> str | None:
        """Behind which event the running attempt takes up the response, ``None`` if it asks for its own."""
        return self._position if self.is_resuming else None

    @property
    def next_position(self) -> str | None:
        """Behind which event the next attempt takes up the response, ``None`` if it asks for one of its own."""
        return self.events.position if self.is_resuming else None

    @property
    def has_progressed(self) -> bool:
        """Whether an event has come since the running attempt began."""
        return self.events.came > self._came

    @property
    def left(self) -> int:
        """How many more times the response may be taken up without an event in between."""
        return self._policy.resumes - (0 if self.has_progressed else self._in_a_row)

    def delay(self) -> float:
        """Return the seconds to wait: none before the first time, and where the last one brought an event."""
        if self.has_progressed or not self._in_a_row:
            return 0.0
        return self._policy.backoff(self._in_a_row - 1, self._random)

    @property
    def obstacle(self) -> str:
        """Why the response cannot be taken up (again), ``""`` if it can."""
        if problem := self.events.problem:
            return problem
        if self.left < 1:
            most = self._policy.resumes
            return f"no event came of {most} resumed streams" if most else "no resumes allowed"
        return "its request is signed" if self._original.is_signed else ""

    def take_up(self, failure: Failure) -> None:
        """Have the next attempts take up the response behind the last event, after this cut."""
        self._in_a_row = 1 if self.has_progressed else self._in_a_row + 1
        self._resumes, self._came = self.resumes, self.events.came
        self.loss, self.is_resuming = failure, True

    def give_up(self) -> None:
        """Have the next attempt ask for a response of its own."""
        self._resumes, self.is_resuming = self.resumes, False

    def partings(self, *, has_ended: bool) -> list[Parting]:
        """Return what is to be asked of the server when the turn is over: nothing where the caller asked for this."""
        response, background = self.events.response, self._background
        if background is None or not response or (self.cancelled, self.deleted) != (None, None):
            return []
        return background.partings(response, has_ended=has_ended)

    def parted(self, parting: Parting, *, acknowledged: bool) -> None:
        """Take whether the server has acknowledged what was asked of it."""
        if parting.kind == "cancel":
            self.cancelled = acknowledged
        else:
            self.deleted = acknowledged


def resumption_of(
    request: Request,
    call: Call,
    policy: Policy,
    random: Callable[[], float],
    refused: RefusedBackgrounds | None,
) -> tuple[BackgroundRequest | None, Resumer | None]:
    """Return what lets the response of a call go on at the server, and what takes it up after a cut.

    Args:
        request: the caller's request.
        call: the streaming call that it makes.
        policy: the limits.
        random: uniform in [0, 1), for jitter.
        refused: the servers that have refused to let a response go on.

    Returns:
        ``None`` for what is not needed: the caller has asked for that, or it is impossible.
    """
    resumption = call.dialect.resumption()
    if resumption is None:
        return None, None
    if call.generation.resumable:
        return None, Resumer(request, resumption, policy, random)
    if resumption.background is None:
        return None, None
    background = BackgroundRequest(request, call, resumption.background, refused or RefusedBackgrounds())
    return background, Resumer(request, resumption, policy, random, background) if background.request else None
