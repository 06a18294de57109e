"""What a scenario must come to, checked the same way whatever the face."""

from __future__ import annotations

from conformance.faces import KEY, PROMPT, Outcome
from unbroken.core.failures import Failure, Phase, Row
from unbroken.errors import ProviderError, StreamCut, TurnError, UnexpectedResponse
from unbroken.lab import Upstream

ANSWER = "Hello from the lab."
LOST = {failure.code for failure in Failure if failure.row is Row.LOST}
BEFORE_OUTPUT = (Phase.HEADERS, Phase.PRELUDE)


def is_whole(outcome: Outcome, upstream: Upstream, *, requests: int) -> None:
    """The caller saw one clean answer, all of it from the last request."""
    assert outcome.error is None
    assert len(upstream.requests) == requests
    if outcome.is_typed:
        assert outcome.text == ANSWER
    else:
        assert outcome.data == upstream.requests[-1].sent
        assert outcome.head is not None
        assert outcome.head.status == 200
        assert ("x-request-id", f"req_lab_{requests}") in outcome.head.fields.items()
    assert outcome.report.attempts[-1].billed == "yes"
    _keeps_the_books(outcome, requests)


def is_replayed(outcome: Outcome, upstream: Upstream, *, codes: set[str] = LOST) -> None:
    """The first request was lost before output, and the caller saw nothing of it."""
    is_whole(outcome, upstream, requests=2)
    lost = outcome.report.attempts[0]
    assert (outcome.report.replays, outcome.report.retries) == (1, 0)
    assert lost.failure in codes
    assert lost.phase in BEFORE_OUTPUT
    assert lost.billed == "unknown"
    assert outcome.told[0].action == "replay"


def is_retried(outcome: Outcome, upstream: Upstream, *, codes: set[str], requests: int = 2, billed: str = "no") -> None:
    """The first requests were not processed, or their server said at once that it could not; the caller saw nothing."""
    is_whole(outcome, upstream, requests=requests)
    assert (outcome.report.replays, outcome.report.retries) == (0, requests - 1)
    for lost, told in zip(outcome.report.attempts[:-1], outcome.told, strict=True):
        assert lost.failure in codes
        assert lost.billed == billed
        assert told.action == "retry"


def is_cut(outcome: Outcome, upstream: Upstream, *, codes: set[str] = LOST, text: str = "Hello") -> None:
    """What came was handed on, the rest is missing, nothing was sent again, and the caller was told."""
    assert isinstance(outcome.error, StreamCut)
    assert outcome.error.phase is Phase.OUTPUT
    assert outcome.error.retryable
    assert outcome.error.report == outcome.report
    assert len(upstream.requests) == 1
    if outcome.is_typed:
        assert outcome.text == text
    else:
        assert outcome.data
        assert upstream.requests[0].sent.startswith(outcome.data)
    assert outcome.report.attempts[0].failure in codes
    _keeps_the_books(outcome, 1)


def has_ended(outcome: Outcome, upstream: Upstream) -> None:
    """The answer had settled: whatever came then cost nothing."""
    is_whole(outcome, upstream, requests=1)
    assert outcome.report.lost == 0


def is_handed_on(outcome: Outcome, upstream: Upstream, *, status: int, requests: int = 1) -> None:
    """The response to the last request is the caller's to see, as it came."""
    assert len(upstream.requests) == requests
    if outcome.is_typed:
        assert isinstance(outcome.error, ProviderError | UnexpectedResponse)
        assert outcome.error.status == status
        assert outcome.error.report == outcome.report
    else:
        assert outcome.error is None
        assert outcome.head is not None
        assert outcome.head.status == status
        assert outcome.data == upstream.requests[-1].sent
    _keeps_the_books(outcome, requests)


def fails(
    outcome: Outcome, upstream: Upstream, error: type[TurnError], *, requests: int, attempts: int | None = None
) -> None:
    """Nothing was handed on; the error says why."""
    assert type(outcome.error) is error
    assert outcome.error.report == outcome.report
    assert not outcome.data
    assert not outcome.text
    assert len(upstream.requests) == requests
    _keeps_the_books(outcome, requests if attempts is None else attempts)


def _keeps_the_books(outcome: Outcome, attempts: int) -> None:
    """What must hold of every turn: no attempt in silence, and no secret in anything that is told."""
    report = outcome.report
    assert len(report.attempts) == attempts
    assert [attempt.number for attempt in report.attempts] == list(range(1, attempts + 1))
    assert len(outcome.told) == report.lost == attempts - 1
    assert all(attempt.elapsed >= 0 and attempt.silent >= 0 for attempt in report.attempts)
    told = repr((report, outcome.told, outcome.error, str(outcome.error)))
    assert KEY not in told
    assert PROMPT not in told
    assert ANSWER not in told
