"""``unbroken lab verdict``: what a program makes of broken connections, and whether it says so."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.options import seconds
from unbroken.cli.scenarios import read_scenario
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.cli.verdict_report import ProgramReport
    from unbroken.cli.verdict_runs import Trial
    from unbroken.lab.scenario import Scenario

WORSE = 1
"""The exit code if something is worse than a loud failure."""

TIMEOUT = 30.0
_MOST_JOBS = 64


def _jobs() -> int:
    """Return how many runs there are at a time by default: they mostly wait, but each begins with work."""
    return min(8, 2 * (os.cpu_count() or 1))


@click.command("verdict", context_settings={"allow_interspersed_args": False})
@click.option("--scenario", "names", multiple=True, metavar="NAME", help="Only this one; a file (.toml) is one's own.")
@click.option("--dialect", metavar="NAME", help="Only scenarios of this dialect; by default of the program's own.")
@click.option(
    "--timeout", type=seconds, default=TIMEOUT, show_default=True, metavar="SECONDS", help="How long a run may take."
)
@click.option("--jobs", type=click.IntRange(1, _MOST_JOBS), metavar="N", help="How many runs there are at a time.")
@click.option(
    "--told", default="", metavar="PATTERN", help="Output with this tells of a failure, whatever the exit code."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--html", "html", metavar="FILE", help="Write a page that stands alone, for a bug report.")
@click.option("--list", "listed", is_flag=True, help="List the scenarios, and run nothing.")
@click.argument("argv", nargs=-1, metavar="COMMAND [ARGS]...")
def command(argv: tuple[str, ...], names: tuple[str, ...], listed: bool, **options: Any) -> None:
    """Judge what a program makes of broken connections.

    It is run once for each of about forty scenarios, several at a time, each against a server of its own that speaks
    every dialect and breaks on script. OPENAI_BASE_URL, ANTHROPIC_BASE_URL, GOOGLE_GEMINI_BASE_URL and their like lead
    there, UNBROKEN_RELAY_URL has the server's URL, and keys that are not set get a value. The program is to ask one
    question, to write the answer to stdout, and to end with an exit code. It gets no input.

    \b
      unbroken lab verdict -- python my_client.py
      unbroken lab verdict --html report.html -- claude -p Hello
      unbroken lab verdict -- unbroken exec -- python my_client.py     the same, with Unbroken

    \b
    Verdicts, the worst first:
      failed silently  exit code 0, without the whole answer
      doubled output   a part of the answer more than once
      hammered         a request that nobody should send again, or before Retry-After, or without end
      hung             still running after --timeout
      paid twice       asked again although a whole answer had been delivered, or for nothing
      failed loudly    an error that says so
      survived         the whole answer, once
      not judged       it did not happen to the program, which speaks no HTTP/2, say

    \b
    Exit codes:
      0  nothing is worse than "failed loudly"
      1  something is
      2  usage; or the program asks the lab nothing, or shows nothing of the answer
      126, 127  the program cannot be run, or is not there
      130, 143  interrupted by Ctrl-C, by SIGTERM; the runs are ended
    """  # noqa: D301 - click's mark
    from unbroken.cli.child import CannotRun, find_program
    from unbroken.cli.terminal import harmless, say

    scenarios = _scenarios(names, options["dialect"])
    if listed:
        _list(scenarios)
        return
    if not argv:
        raise click.UsageError("name a program: unbroken lab verdict -- COMMAND [ARGS]...", click.get_current_context())
    _check(options)
    try:
        program = find_program(argv[0])
    except CannotRun as exc:
        say(f"unbroken: {harmless(str(exc))}")
        raise SystemExit(exc.code) from None
    report = _judge([program, *argv[1:]], argv, scenarios, options)
    _tell(report, options)
    raise SystemExit(0 if report.is_fine else WORSE)


def _scenarios(names: Sequence[str], dialect: str | None) -> list[Scenario]:
    """Return the scenarios that are named, by default all of the catalogue, as far as a dialect has them."""
    from unbroken.core.dialects import find_dialect
    from unbroken.lab.scenario import catalogue

    if dialect is not None:
        find_dialect(dialect)
    found = [_find(name) for name in names] if names else list(catalogue().values())
    return [scenario for scenario in found if dialect is None or scenario.suits(dialect)]


def _find(name: str) -> Scenario:
    from unbroken.lab.verdict import check_answer

    scenario = read_scenario(name)
    try:
        check_answer(scenario)
    except ValueError as exc:
        raise UsageError(f"{name}: answer.text: {exc}") from None
    return scenario


def _list(scenarios: Sequence[Scenario]) -> None:
    width = max((len(scenario.name) for scenario in scenarios), default=0)
    for scenario in scenarios:
        click.echo(f"{scenario.name.ljust(width)}  {scenario.about}")


def _check(options: Mapping[str, Any]) -> None:
    """Refuse now what would fail after minutes.

    Raises:
        UsageError: the pattern is none, the timeout is zero, or the page cannot be written.
    """
    if not options["timeout"]:
        raise UsageError("--timeout must be more than 0")
    try:
        re.compile(options["told"])
    except re.error as exc:
        raise UsageError(f"--told: {exc}") from None
    if options["html"]:
        _write(Path(options["html"]), "")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("w" if text else "a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None


def _judge(
    command_line: Sequence[str], argv: Sequence[str], scenarios: Sequence[Scenario], options: Mapping[str, Any]
) -> ProgramReport:
    from unbroken.cli.secret_text import SecretText
    from unbroken.cli.verdict_report import ProgramReport
    from unbroken.cli.verdict_runs import CONTROL, Trials

    started = time.monotonic()
    secrets = SecretText(os.environ)
    with (
        Trials(command_line, os.environ, options["timeout"], options["told"]) as trials,
        _progress(1 + len(scenarios)) as done,
    ):
        try:
            control, dialect = trials.first()
        except UsageError as exc:
            raise UsageError(secrets.hide(str(exc))) from None
        done(control)
        others = [one for one in scenarios if one.name != CONTROL and one.suits(options["dialect"] or dialect)]
        found = trials.run_all(others, options["jobs"] or _jobs(), done)
    if any(scenario.name == CONTROL for scenario in scenarios):
        found = [control, *found]
    return ProgramReport(argv, dialect, found, time.monotonic() - started, secrets)


def _tell(report: ProgramReport, options: Mapping[str, Any]) -> None:
    from unbroken.cli.json_output import encoded
    from unbroken.cli.output import Output
    from unbroken.cli.terminal import plain, say

    if options["html"]:
        from unbroken.cli.verdict_html import page

        _write(Path(options["html"]), page(report))
        say(f"the report is in {options['html']}")
    stdout = Output(sys.stdout)
    if options["as_json"]:
        stdout.write_bytes(encoded(report.as_json()))
    else:
        stdout.write(plain(report.as_table(), stdout.encoding))


@contextlib.contextmanager
def _progress(number: int) -> Iterator[Callable[[Trial], None]]:
    """Yield a function that shows, on a terminal, how many runs of how many are done."""
    from unbroken.cli.terminal import harmless, status_line

    ended = 0
    with status_line() as show_line:

        def done(trial: Trial) -> None:
            nonlocal ended
            ended += 1
            show_line(harmless(f"{ended} of {number}: {trial.verdict.scenario}: {trial.verdict.outcome}"))

        show_line(f"0 of {number}")
        yield done
