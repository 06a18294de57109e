"""The verdict on a program as a table, and as one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unbroken import __version__
from unbroken.cli.secret_text import SecretText
from unbroken.cli.terminal import harmless
from unbroken.cli.verdict_runs import Trial
from unbroken.lab.record import RecordedRequest
from unbroken.lab.verdict import OUTCOMES, generation_calls

_SHOWN = 24
"""How many of a run's requests are told one by one."""


@dataclass(frozen=True)
class ProgramReport:
    """The report on the runs of one program.

    Attributes:
        command: the program and its arguments, as they were given.
        dialect: the name of its dialect.
        trials: its runs, in order.
        seconds: how long all of it took.
        secrets: hides keys in what the program has said, and in its command.
    """

    command: Sequence[str]
    dialect: str
    trials: Sequence[Trial]
    seconds: float
    secrets: SecretText

    @property
    def is_fine(self) -> bool:
        """Whether nothing is worse than a loud failure."""
        return all(trial.verdict.is_fine for trial in self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """How often each outcome came, the worst first."""
        counts = Counter(trial.verdict.outcome for trial in self.trials)
        return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}

    @property
    def summary(self) -> str:
        """One line."""
        told = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        scenarios = f"{len(self.trials)} scenario{'s' * (len(self.trials) != 1)}"
        return f"{scenarios} in {self.seconds:.0f} s: {told or 'none judged'}"

    @property
    def shown_command(self) -> str:
        """The command on one line, without keys."""
        return self.secrets.hide(" ".join(self.command))

    def as_table(self) -> str:
        """Return a table with a line for each run, and the summary."""
        head = ("scenario", "verdict", "requests", "seconds", "exit", "")
        rows = [head, *(_row(trial) for trial in self.trials)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.rjust(width) if 1 < column < 5 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", self.summary, ""])

    def as_json(self) -> dict[str, Any]:
        """Return one object for a program."""
        return {
            "command": [self.secrets.hide(word) for word in self.command],
            "dialect": self.dialect,
            "version": __version__,
            "seconds": round(self.seconds, 3),
            "verdicts": self.counts,
            "fine": self.is_fine,
            "scenarios": [self._trial(trial) for trial in self.trials],
        }

    def _trial(self, trial: Trial) -> dict[str, Any]:
        verdict = trial.verdict
        return {
            "scenario": verdict.scenario,
            "about": trial.scenario.about,
            "verdict": verdict.outcome,
            "found": verdict.found,
            "reasons": verdict.reasons,
            "requests": verdict.requests,
            "seconds": round(trial.program.seconds, 3),
            "exit_code": trial.program.exit_code,
            "output": self.secrets.hide(trial.program.stdout),
            "stderr": self.secrets.hide(trial.program.stderr),
            "attempts": attempts_of(trial),
        }


def attempts_of(trial: Trial) -> list[dict[str, Any]]:
    """Return when each generation call came, in seconds since the first, and the fault that it met, in words."""
    calls = generation_calls(trial.requests)
    return [
        {"at": round(call.received_at - calls[0].received_at, 3), "fault": fault_of(call)} for call in calls[:_SHOWN]
    ]


def fault_of(request: RecordedRequest) -> str | None:
    """Return the fault that a request met, in words; ``None`` if it met none."""
    return request.fault.words if request.fault else None


def _row(trial: Trial) -> tuple[str, ...]:
    code = trial.program.exit_code
    return (
        harmless(trial.verdict.scenario),
        ", ".join(trial.verdict.found),
        str(trial.verdict.requests),
        f"{trial.program.seconds:.1f}",
        "-" if code is None else str(code),
        "" if trial.verdict.outcome == "survived" else "; ".join(trial.verdict.reasons),
    )
