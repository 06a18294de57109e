"""``unbroken exec``: run a program behind a relay of its own."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.options import option
from unbroken.cli.relay_options import RelayCommand, serving_options, settings_from
from unbroken.cli.upstreams import find_upstreams, parse_upstreams
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from unbroken.cli.presets import Preset
    from unbroken.relay.log_writer import LineWriter
    from unbroken.relay.recorder import Totals
    from unbroken.relay.settings import Settings
    from unbroken.relay.telemetry import AccessLog

LAST_TURNS = 1.0
"""Seconds for turns that still run when the program has ended: no client waits for them."""

LAST_LINE = 2.0
"""Seconds for which the last line may wait to be written."""

_PREFIX, _SHOWN, _PROGRAM = "UNBROKEN_EXEC_", "What is shown", "The program"


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete a program, and then files: the program's options are not known."""
    from click.shell_completion import CompletionItem

    if ctx.params.get("argv") or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    names = {file.name for folder in folders if folder.is_dir() for file in folder.glob(f"{glob.escape(incomplete)}*")}
    return [CompletionItem(name) for name in sorted(names)]


class ExecCommand(RelayCommand):
    """A command that uses the settings of ``[relay]``, except ``quiet``."""

    def defaults(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the file that this command uses."""
        return {key: value for key, value in super().defaults(config).items() if key != "quiet"}


@click.command("exec", cls=ExecCommand, context_settings={"allow_interspersed_args": False})
@serving_options
@option(
    _PROGRAM,
    "--no-preset",
    "Choose nothing for a program that is known; else one that shows nothing before the end has its answers held.",
    prefix=_PREFIX,
    is_flag=True,
)
@option(_SHOWN, "--quiet -q", "No line at the end.", prefix=_PREFIX, is_flag=True)
@option(_SHOWN, "--log FILE", "Append a line for each request to a file.", prefix=_PREFIX)
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND [ARGS]...", shell_complete=_complete)
@click.pass_context
def command(ctx: click.Context, /, argv: tuple[str, ...], **options: Any) -> None:
    """Run a program whose turns shall survive.

    It runs behind a relay of its own, on a free port of this machine: OPENAI_BASE_URL, ANTHROPIC_BASE_URL,
    GOOGLE_GEMINI_BASE_URL and their like lead there, for this program alone. Where such a variable was set, the relay
    forwards to what it said. Terminal, signals and exit code are the program's own; at its end a line on stderr says
    what was survived, and what was chosen for a program that is known (--no-preset: nothing).

    \b
      unbroken exec -- aider
      unbroken exec -- claude -p "Why is the sky blue?"
      unbroken exec --proxy socks5h://127.0.0.1:10808 -- python my_agent.py

    A program that reads none of these variables is told by its own means; the relay's URL is in UNBROKEN_RELAY_URL:

    \b
      unbroken exec sh -c 'codex -c openai_base_url=$UNBROKEN_RELAY_URL/openai/v1'

    Exit codes are the program's; 126 and 127: it cannot be run, or is not there; 2: an option or the configuration.
    Options may also stand in the configuration file, below [relay], or in the environment, as UNBROKEN_RELAY_HEARTBEAT
    and so on; those about the connection also above it, and as UNBROKEN_PROXY and so on.
    """  # noqa: D301 - click's mark
    from unbroken.cli.base_urls import as_tables, child_environment, find_variables
    from unbroken.cli.child import CannotRun, find_program, run
    from unbroken.cli.terminal import harmless, say

    preset = _preset(argv, options)
    if preset:
        options["hold"] = preset.hold
    try:
        program = find_program(argv[0])
        given = parse_upstreams(options["upstream"])
        variables = find_variables(os.environ, given)
        upstreams = find_upstreams(given, os.environ, redirected=as_tables(variables))
        settings = settings_from(ctx, options, upstreams, grace=LAST_TURNS, path_secret=secrets.token_urlsafe(18))
        with _lines_to(options["log"]) as lines:
            log = _access_log(lines) if options["log"] else None
            with _relay(settings, log, lines) as (origin, totals):
                environ = child_environment(os.environ, origin, variables, upstreams)
                code = run(program, argv, {**preset.environ, **environ} if preset else environ)
    except CannotRun as exc:
        say(f"unbroken: {harmless(str(exc))}")
        raise SystemExit(exc.code) from None
    if not options["quiet"]:
        _say_in_time(f"unbroken: {summary(totals, preset)}")
    raise SystemExit(code)


def _preset(argv: Sequence[str], options: Mapping[str, Any]) -> Preset | None:
    """Return the preset for a command; ``None`` if no preset suits it, or the user has chosen."""
    from unbroken.cli.presets import find_preset

    return None if options["no_preset"] or options["hold"] is not None else find_preset(argv)


def summary(totals: Totals, preset: Preset | None = None) -> str:
    """Return the outcomes of the turns, and what was chosen for the program, in one line."""
    if not totals.turns:
        others = f" ({_counted(totals.passed, 'other request')} did)" if totals.passed else ""
        return f"no turn came through the relay{others}: where does the program take its base URL from?"
    said = [_counted(totals.turns, "turn"), f"{totals.answered} answered"]
    if totals.saved:
        said.append(f"{totals.saved} survived a lost attempt")
    if totals.cut:
        said.append(f"{totals.cut} cut")
    if totals.answered == totals.turns and not totals.saved:
        said.append("no attempt lost")
    told = f"; for {preset.program}: --hold {preset.hold} (--no-preset: not)" if preset else ""
    return ", ".join(said) + told


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _say_in_time(text: str) -> None:
    """Say a last line on stderr; leave it out if stderr is a pipe that is full and not read."""
    from unbroken.cli.terminal import say

    thread = threading.Thread(target=say, args=(text,), daemon=True)
    thread.start()
    thread.join(LAST_LINE)


@contextlib.contextmanager
def _relay(settings: Settings, log: AccessLog | None, lines: LineWriter) -> Iterator[tuple[str, Totals]]:
    """Run a relay on a thread, which ends with the process in any case; yield its URL and what it counts."""
    from unbroken.relay.app import Relay
    from unbroken.relay.server import listen, make_server, origin_of

    relay = Relay(settings, log=log)
    sock = listen("127.0.0.1", 0)
    server = make_server(relay, settings, lines)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="relay", daemon=True)
    thread.start()
    try:
        yield f"{origin_of(sock)}/{settings.path_secret}", relay.recorder.totals
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def _lines_to(file: str | None) -> Iterator[LineWriter]:
    """Yield a writer of lines to a file, to which others may append too, or to stderr."""
    from unbroken.relay.log_writer import LineWriter

    try:
        descriptor = 2 if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as exc:
        raise UsageError(f"cannot write {file}: {exc.strerror}") from None
    lines = LineWriter(descriptor)
    try:
        yield lines
    finally:
        lines.close()
        if file is not None:
            os.close(descriptor)


def _access_log(lines: LineWriter) -> AccessLog:
    from unbroken.relay.telemetry import AccessLog, timestamp

    return AccessLog(lambda line: lines(f"{timestamp()} {line}"))
