"""The record of an attempt: its state as the report tells it."""

from __future__ import annotations

from typing import Literal

import msgspec

from unbroken.core.attempt import Attempt, Mode
from unbroken.core.failures import Failure, Phase, Row
from unbroken.core.paths import PathName
from unbroken.core.report import AttemptReport, lowered_ping
from unbroken.core.statuses import NOT_PROCESSED


def record_of(
    attempt: Attempt,
    failure: Failure | None,
    detail: str,
    silent: float,
    path: PathName,
    started: float,
    now: float,
    resumes: str | None = None,
    *,
    runs_on: bool = False,
) -> AttemptReport:
    """Describe an attempt.

    Args:
        attempt: the attempt.
        failure: how it failed, ``None`` if it did not.
        detail: one line for a person.
        silent: seconds since the last byte of the response.
        path: the path that it takes.
        started: when the turn began, on the driver's clock.
        now: the driver's clock.
        resumes: behind which event it takes up the response of the attempts before it, ``None`` if it does not.
        runs_on: whether the server may go on generating its response although the attempt was lost.
    """
    head = attempt.head
    record = AttemptReport(
        number=attempt.number,
        phase=attempt.phase,
        failure=failure.code if failure else None,
        detail=detail,
        status=head.status if head else None,
        after=max(0.0, attempt.started - started),
        headers_after=_since(attempt.started, attempt.headers_at),
        output_after=_since(attempt.started, attempt.output_at),
        elapsed=max(0.0, now - attempt.started),
        silent=attempt.route.waited if failure is Failure.GATEWAY_GAVE_UP else silent,  # what its status ended
        http_version=head.http_version if head else attempt.route.http_version,
        route=attempt.route,
        billed="no" if resumes is not None else "yes" if runs_on and head else _billed(attempt, failure),
        held=attempt.phase is Phase.OUTPUT and not attempt.has_spoken,
        finish_reason=attempt.finish_reason or None,
        path=path.name,
        path_source=path.source,
        resumes=resumes,
        runs_on=runs_on,
    )
    return msgspec.structs.replace(record, lowered_ping=lowered_ping(record))


def _billed(attempt: Attempt, failure: Failure | None) -> Literal["no", "unknown", "yes"]:
    spoke = attempt.phase in (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE) and attempt.mode is not Mode.OPAQUE
    if spoke and not attempt.noted:
        return "yes"  # regardless of what the server sent afterwards
    if attempt.phase is Phase.CONNECT or (failure and failure.row in (Row.UNPROCESSED, Row.REFUSED)):
        return "no"
    if failure is Failure.BUSY and attempt.head and attempt.head.status in NOT_PROCESSED:
        return "no"
    return "unknown"


def _since(started: float, moment: float | None) -> float | None:
    return None if moment is None else moment - started
