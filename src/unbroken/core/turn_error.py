"""The error of a turn that failed: which one it is, and what it says."""

from __future__ import annotations

from unbroken.core.budget import times
from unbroken.core.failures import Failure, Phase, Row, described
from unbroken.core.paths import told_by_path
from unbroken.core.policy import Policy
from unbroken.core.report import AttemptReport, Report
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    StreamCut,
    TurnError,
    UnexpectedResponse,
    Unreachable,
)


def turn_error(
    failure: Failure,
    report: Report,
    policy: Policy,
    refused: str,
    *,
    after_cut: str = "",
    cut_in: Phase = Phase.OUTPUT,
) -> TurnError:
    """Build the error of a turn.

    Args:
        failure: how its last attempt failed.
        report: all of its attempts.
        policy: its limits.
        refused: why there is no further attempt, or ``""``.
        after_cut: what did not come, where an earlier attempt had a part of the answer: whatever failed since, that is
            cut.
        cut_in: how far the answer had come there.
    """
    last = report.attempts[-1]
    phase = last.phase
    happened = told_by_path((one.path, described(one.failure, one.detail)) for one in report.attempts)
    retryable = failure.row in (Row.LOST, Row.UNPROCESSED, Row.UNREACHABLE)
    because = _because(report, refused)
    advice = f"; {report.advice}" if report.advice else ""
    is_own_limit = failure is Failure.CALLER_TIMEOUT or (cut_in is not Phase.OUTPUT and failure.row is Row.NO_OUTPUT)
    if after_cut and not is_own_limit:
        message = f"the answer was cut, and {after_cut} did not come: {happened}{because}{advice}"
        return StreamCut(message, phase=cut_in, retryable=retryable, report=report)
    if failure.row is Row.MALFORMED:
        return MalformedStream(f"the stream is broken: {happened}", phase=phase, report=report)
    if failure is Failure.CALLER_TIMEOUT:
        return CallerTimeout(last.detail, phase=phase, report=report)
    if failure.row is Row.NO_OUTPUT:
        return _first_output_timeout(policy, report)
    if failure.row is Row.UNREADABLE:
        message = f"{failure.phrase}: {last.detail}"
        return UnexpectedResponse(message, status=last.status or 0, phase=phase, report=report)
    if phase is Phase.CONNECT or failure.row is Row.MISCONFIGURED:
        return Unreachable(f"{happened}{because}", phase=phase, retryable=retryable, report=report)
    message = f"the stream was cut after {last.elapsed:.1f} s, {_when(last)}: {happened}{because}{advice}"
    return StreamCut(message, phase=phase, retryable=retryable, report=report)


def _because(report: Report, refused: str) -> str:
    lost = f"; {times(len(report.attempts), 'attempt')} in all" if len(report.attempts) > 1 else ""
    return f" ({refused}{lost})" if refused else ""


def _first_output_timeout(policy: Policy, report: Report) -> FirstOutputTimeout:
    message = (
        f"no output within {policy.first_output_timeout:g} s; raise the limit if the model may think longer"
        " (Policy.first_output_timeout, --first-output)"
    )
    return FirstOutputTimeout(message, phase=report.attempts[-1].phase, retryable=True, report=report)


def _when(last: AttemptReport) -> str:
    if last.held:
        return "after output, of which nothing was handed on"
    before = last.phase in (Phase.HEADERS, Phase.PRELUDE)
    return "before any output" if before else "after output: the answer is not whole"
