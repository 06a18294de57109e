"""The command line: one module a command, imported when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from unbroken import __version__
from unbroken.cli.exits import exit_code, on_sigterm
from unbroken.errors import UnbrokenError

_COMMANDS = {
    "run": "Ask a model and stream its answer, whatever the connection does.",
    "init": "Write the configuration file.",
    "demo": "Watch a real model's turn survive a cut connection. No key, no network.",
    "lab": "Break connections on purpose: a scripted upstream, a cutting proxy.",
}


class _Commands(click.Group):
    """Knows its commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"unbroken.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Keep streaming LLM turns alive.

    A reasoning model is silent for a long time before its first token; something on the way takes the connection for
    idle and cuts it. Unbroken prevents the cut (HTTP/2 PING), replays what was cut before the first token, and never
    passes a truncated answer off as a whole one.

    \b
      unbroken demo                      see it work, without a key or a network
      unbroken run "Why is the sky blue?"
      git diff | unbroken run "Review this change"

    Exit codes: 0 answered; 2 usage; 3 refused by the provider; 4 the stream was lost; 5 the provider was unreachable
    or overloaded to the end of the budget; 130 and 143 interrupted.
    """


def main() -> NoReturn:
    """The console script. Every outcome is an exit code; a user's mistake never makes a traceback."""
    try:
        on_sigterm()
        cli.main(prog_name="unbroken", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except UnbrokenError as exc:
        click.echo(f"unbroken: {exc}", err=True)
        code = exit_code(exc)
    except BrokenPipeError:
        code = _stdout_closed()
    else:
        code = 0
    sys.exit(code)


def _stdout_closed() -> int:
    """What is still buffered goes nowhere; without this the interpreter would complain while it exits."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    click.echo("unbroken: stdout was closed, so the turn was ended", err=True)
    return 141
