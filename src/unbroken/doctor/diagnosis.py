"""The diagnosis of a path: the findings of every source, which of them are faults, and the idle limit."""

from __future__ import annotations

from unbroken.core.finding import Finding
from unbroken.doctor.examination import Examination
from unbroken.doctor.silences import IdleReport
from unbroken.doctor.verdict import NOTES, IdleVerdict


class Diagnosis:
    """What an examination, its idle test and past turns say together.

    Args:
        examination: the examination, also one that was interrupted.

    Attributes:
        findings: the findings in order of importance: of the path as it is now, and of past turns.
        faults: those of them by which this very path is not as it should be.
        idle_limit: seconds of silence after which this path cuts, or did in past turns; ``None`` if it is not known.
    """

    def __init__(self, examination: Examination) -> None:
        verdict = IdleVerdict(examination.path.idle or IdleReport(), examination.target.ping)
        past, pattern = examination.past, examination.past_pattern
        found = [*examination.findings, *verdict.findings]
        now = list({finding.code: finding for finding in reversed(found)}.values())[::-1]
        self.findings: list[Finding] = [*now, *past.findings]
        self.faults = [finding for finding in now if finding.code not in NOTES]
        self.idle_limit = verdict.limit
        if pattern:
            self.faults.append(past.turns.finding_of(pattern))
            self.idle_limit = verdict.limit or round(pattern.timer, 1)
