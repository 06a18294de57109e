"""Runs of a program, one for each scenario, several at a time, each with a server of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from unbroken.cli.base_urls import lab_environment
from unbroken.core.dialects import dialect_at
from unbroken.core.providers import PROVIDERS
from unbroken.errors import UsageError
from unbroken.lab.certificate import Authority
from unbroken.lab.numbered import numbers_in
from unbroken.lab.program import ProgramRun, Programs
from unbroken.lab.record import RecordedRequest
from unbroken.lab.scenario import Scenario, find_scenario
from unbroken.lab.scenario_server import DUMMY_KEY, UNNOTED
from unbroken.lab.verdict import Baseline, ClientRun, ClientVerdict, baseline, generation_calls, judge

CONTROL = "nothing"
"""The scenario of the catalogue in which nothing goes wrong."""

_TIMES_THE_SILENCE = 2
"""A run must have this many times the time in which the scenario is silent."""

_WAKE_UP = 0.5
"""Seconds between two looks for Ctrl-C, which does not interrupt a wait for a lock on Windows."""


@dataclass(frozen=True)
class Trial:
    """One run of the program.

    Attributes:
        scenario: what happened to it.
        program: what it did.
        requests: what it sent.
        verdict: what is to be said of it.
    """

    scenario: Scenario
    program: ProgramRun
    requests: Sequence[RecordedRequest]
    verdict: ClientVerdict


class Trials:
    """A context that runs a program against scenarios; no run outlives it.

    Args:
        argv: the program's file and its arguments.
        environ: the environment of this process.
        timeout: seconds for each run.
        told: a pattern by which every output tells of a failure, ``""`` for none.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float, told: str = "") -> None:
        self._argv = argv
        self._environ = environ
        self._timeout = timeout
        self._told = told
        self._programs = Programs()
        self._folder = tempfile.TemporaryDirectory(prefix="unbroken-lab-", ignore_cleanup_errors=True)
        self._authority = Authority(Path(self._folder.name))
        self._normal = Baseline()

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._programs.close()
        self._folder.cleanup()

    def first(self) -> tuple[Trial, str]:
        """Run the program where nothing goes wrong; return that, and the name of its dialect.

        Raises:
            UsageError: it did not ask the lab, or shows nothing of the answer: it cannot be judged.
        """
        control = find_scenario(CONTROL)
        trial = self.run(control)
        calls = generation_calls(trial.requests)
        if not calls:
            raise UsageError(
                "the program sent no generation call to the lab: where does it take its base URL from?"
                f" The lab's is in OPENAI_BASE_URL and its like, and in UNBROKEN_RELAY_URL. {_ended(trial.program)}"
            )
        if trial.program.exit_code is not None and not numbers_in(trial.program.stdout):
            raise UsageError(
                "the program shows nothing of the answer on stdout, even where nothing goes wrong: it cannot be judged."
                f" {_ended(trial.program)}"
            )
        self._normal = baseline(_client_run(trial.program, trial.requests))
        dialect = dialect_at(calls[0].method, calls[0].path)
        return self._judged(control, trial.program, trial.requests), dialect.name if dialect else ""

    def run(self, scenario: Scenario) -> Trial:
        """Run the program against one scenario; leave it out if the time of a run is too short for it."""
        needed = max(scenario.patience, _TIMES_THE_SILENCE * scenario.silence)
        if needed > self._timeout:
            return _left_out(scenario, needed)
        context = self._authority.server_context() if scenario.tls else None
        with scenario.upstream(before=self._normal.before, ssl_context=context) as upstream:
            trusting = self._authority.environment() if scenario.tls else {}
            environ = {**program_environment(self._environ, upstream.origin), **trusting}
            ran = self._programs.run(self._argv, environ, self._timeout)
            requests = tuple(upstream.requests)
        return self._judged(scenario, ran, requests)

    def run_all(self, scenarios: Sequence[Scenario], jobs: int, done: Callable[[Trial], None]) -> list[Trial]:
        """Run the program against all scenarios, so many at a time; return the runs in the order of the scenarios.

        Args:
            scenarios: which.
            jobs: how many runs there are at a time.
            done: called, in this thread, after each run.
        """
        with ThreadPoolExecutor(jobs, thread_name_prefix="trial") as pool:
            left: set[Future[Trial]] = set()
            try:
                futures = [pool.submit(self.run, scenario) for scenario in scenarios]
                left = set(futures)
                while left:
                    ended, left = wait(left, _WAKE_UP, FIRST_COMPLETED)
                    for future in ended:
                        done(future.result())
            finally:  # also after Ctrl-C
                for future in left:
                    future.cancel()
                if left:
                    self._programs.close()
            return [future.result() for future in futures]

    def _judged(self, scenario: Scenario, ran: ProgramRun, requests: Sequence[RecordedRequest]) -> Trial:
        run = _client_run(ran, requests)
        return Trial(scenario, ran, requests, judge(scenario, run, self._normal, told=self._told))


def program_environment(environ: Mapping[str, str], origin: str) -> dict[str, str]:
    """Return the environment of a program whose base URLs all lead to the lab, with keys where none is set.

    Args:
        environ: the environment of this process.
        origin: the lab's URL.
    """
    child = {**lab_environment(environ, origin), **UNNOTED}
    for provider in PROVIDERS.values():
        if provider.key_env and not environ.get(provider.key_env, "").strip():
            child[provider.key_env] = DUMMY_KEY
    return child


def _left_out(scenario: Scenario, needed: float) -> Trial:
    reason = f"it takes --timeout {needed:g} or more: good clients may wait that long"
    verdict = ClientVerdict(scenario.name, "not judged", ("not judged",), (reason,), 0)
    return Trial(scenario, ProgramRun(None, "", "", 0.0), (), verdict)


def _client_run(ran: ProgramRun, requests: Sequence[RecordedRequest]) -> ClientRun:
    return ClientRun(ran.stdout, ran.exit_code, ran.seconds, requests, ran.stderr)


def _ended(ran: ProgramRun) -> str:
    """Return how a program ended, with its last words."""
    how = f"It ran for {ran.seconds:.0f} s" if ran.exit_code is None else f"It exited with {ran.exit_code}"
    last = (ran.stderr.strip() or ran.stdout.strip()).splitlines()[-1:]
    return f"{how}; its last words: {last[0][-300:]}" if last else f"{how}, and said nothing."
