"""What a turn can do about a cut besides a replay: continue the answer, begin it again, take its stream up.

Each is made only for a turn that may need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unbroken.core.actions import Parting, RetryAction
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.budget import REPLAYS
from unbroken.core.dialect import Call
from unbroken.core.failures import Failure, Phase, Row, Verdict
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import BackgroundReport
from unbroken.core.restarting import Restarter
from unbroken.errors import PartialAnswer, RestOfAnswer

if TYPE_CHECKING:
    from unbroken.core.continuation.continuer import Continuer
    from unbroken.core.continuation.format import Style
    from unbroken.core.resumption.background import BackgroundRequest
    from unbroken.core.resumption.events import ResumableEvents
    from unbroken.core.resumption.refused import RefusedBackgrounds
    from unbroken.core.resumption.resumer import Resumer


class Recoveries:
    """The recoveries of one turn.

    Args:
        call: the generation call.
        policy: the limits.
        random: uniform in [0, 1), for jitter.
        request: the request, from which others of the turn are made; ``None`` for no recovery.
        style: the style in which its server continues an answer, ``None`` for the one that is known of it.
        may_restart: whether the caller can be told that its answer begins again.
        kept_at: the URL of the relay at which a response that a relay keeps is taken up, ``""`` for the root of the
            server; ``None`` for nowhere.
        refused: the servers that have refused to let a response go on.

    Attributes:
        continuer: continues the answer, ``None`` if that is not to be done.
        restarter: begins it again, likewise.
        resumer: takes its stream up, likewise.
        background: lets the response go on at the server although the caller did not ask for that.
    """

    def __init__(
        self,
        call: Call,
        policy: Policy,
        random: Callable[[], float],
        request: Request | None,
        *,
        style: Style | None,
        may_restart: bool,
        kept_at: str | None,
        refused: RefusedBackgrounds | None,
    ) -> None:
        self._call = call
        self._policy = policy
        self._random = random
        self._request = request
        self._style = style
        self._kept_at = kept_at
        self.continuer = self._new_continuer()
        self.restarter = Restarter() if may_restart and policy.after_output == "restart" and call.streaming else None
        self.background, self.resumer = self._new_resumer(refused)

    def _new_continuer(self) -> Continuer | None:
        if self._request is None or self._policy.after_output != "continue" or not self._call.streaming:
            return None
        from unbroken.core.continuation.continuer import Continuer  # few turns need it

        return Continuer(self._request, self._call, self._style, self._policy.max_event)

    def _new_resumer(self, refused: RefusedBackgrounds | None) -> tuple[BackgroundRequest | None, Resumer | None]:
        call, policy = self._call, self._policy
        if self._request is None or not call.streaming or not (call.generation.resumable or policy.background):
            return None, None
        from unbroken.core.resumption.resumer import resumption_of  # few turns need it

        return resumption_of(self._request, call, policy, self._random, refused)

    # Queries

    @property
    def request(self) -> Request | None:
        """The request of the running attempt, ``None`` for the caller's own."""
        if self.resumer and self.resumer.request:
            return self.resumer.request
        return self.continuer.request if self.continuer else None

    @property
    def events(self) -> ResumableEvents | None:
        """The events of a response that can be taken up; ``None`` if it cannot."""
        return self.resumer.events if self.resumer else None

    @property
    def takes_up(self) -> bool:
        """Whether the running attempt takes up a response that another one asked for."""
        return self.resumer is not None and self.resumer.is_resuming

    @property
    def is_restart_due(self) -> bool:
        """Whether the caller has output of a lost attempt, which the running one is to begin again."""
        return self.restarter is not None and self.restarter.is_due

    @property
    def owed(self) -> str:
        """What the running attempt owes to a caller that has output of an earlier one; ``""`` if it has none."""
        if self.continuer and self.continuer.request is not None:
            return "its rest"
        return "another answer" if self.is_restart_due else ""

    def may_grow(self, attempt: Attempt) -> bool:
        """Return whether another attempt may add to the body of this one."""
        return bool(self.restarter or self.resumer or (self.continuer and attempt.mode is Mode.STREAM))

    @property
    def why_not(self) -> str:
        """Why a response was not taken up, where it might have been; otherwise ``""``."""
        if self.resumer:
            return self.resumer.why_not
        return f"not resumable: {self.background.why_not}" if self.background else ""

    def named(self, how: Verdict, attempt: Attempt) -> RetryAction:
        """Return what is done about a lost attempt, for the observer."""
        if how not in REPLAYS:
            return "retry"
        if self.continuer and self.continuer.character is not None:
            return "continue"
        return "restart" if attempt.has_spoken else "replay"

    def may_run_on(self, attempt: Attempt, failure: Failure) -> bool:
        """Return whether the server may go on generating the response of a lost attempt: ``background`` was added."""
        if self.background is None or self.background.request is None or attempt.has_ended:
            return False
        return attempt.phase is not Phase.CONNECT and failure.row is not Row.TRANSIENT_ERROR

    def rest(self, partial: PartialAnswer | None) -> RestOfAnswer:
        """Return how a program can ask for the rest of the answer by itself."""
        if self.continuer:
            return self.continuer.rest()
        from unbroken.core.continuation.request import PartialTranscript, rest_of

        transcript = PartialTranscript(partial) if partial else None
        return rest_of(self._request, self._call.dialect.continuation(), self._style, transcript)

    def background_report(self) -> BackgroundReport | None:
        """Return what became of a response that was to go on at the server; ``None`` if none was."""
        background, resumer = self.background, self.resumer
        if background is None or background.request is None or resumer is None:
            return BackgroundReport(added=False, why_not=background.why_not) if background else None
        return BackgroundReport(added=True, cancelled=resumer.cancelled, deleted=resumer.deleted)

    # Events

    def begin(self, attempt: int) -> None:
        """Begin the attempt of this number."""
        if self.resumer:
            self.resumer.begin(attempt)
        if self.continuer:
            self.continuer.begin(attempt)
        if self.restarter and not self.takes_up:
            self.restarter.begin()

    def answered(self, head: Head, attempt: Attempt) -> None:
        """Take the head of a response. One that a relay keeps can be taken up after a cut, whatever its dialect."""
        if self.resumer is None and self._kept_at is not None and "x-unbroken-keep" in head.fields:
            self.resumer = self._new_kept_resumer(head, attempt, self._kept_at)
        if self.resumer:
            self.resumer.note_head(head)
        if self.background:
            self.background.answered(head.status)

    def _new_kept_resumer(self, head: Head, attempt: Attempt, relay: str) -> Resumer | None:
        from unbroken.core.resumption.kept import KeptResumer, kept_turn  # few turns need it

        if self._request is None or not self._call.streaming or not kept_turn(head):
            return None
        resumer = KeptResumer(self._request, relay, self._policy, self._random)
        resumer.begin(attempt.number)
        attempt.pass_through(resumer.events)
        return resumer

    def may_refuse_background(self, head: Head) -> bool:
        """Return whether an error may refuse what was added to the caller's request."""
        return self.background is not None and not self.takes_up and self.background.may_be_refused_by(head.status)

    def refuses_background(self, head: Head, body: bytes) -> bool:
        """Return whether an error refuses it; the request is then sent as the caller wrote it."""
        if self.background is None or not self.may_refuse_background(head):
            return False
        if not self.background.is_refused_by(head.status, body):
            return False
        self.background.drop(head.status)
        self.resumer = None
        return True

    # When the turn is over

    def partings(self, attempt: Attempt) -> list[Parting]:
        """Return what is to be asked of the server, whether or not the caller is still there."""
        return self.resumer.partings(has_ended=attempt.has_ended) if self.resumer else []

    def parted(self, parting: Parting, *, acknowledged: bool) -> None:
        """Take whether the server has acknowledged what was asked of it."""
        if self.resumer:
            self.resumer.parted(parting, acknowledged=acknowledged)
