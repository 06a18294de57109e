"""The command line: one module per command, imported when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from unbroken.cli.exits import exit_on_signals, interrupt_on_signals


def main() -> NoReturn:
    """Run the console script. Every outcome is an exit code; a user's mistake never makes a traceback."""
    try:
        interrupt_on_signals()
        reserve_standard_descriptors()
        code = execute(sys.argv[1:])
    except KeyboardInterrupt:  # before the signal handlers were set
        code = 130
    finally:
        exit_on_signals()
    sys.exit(code)


def execute(args: Sequence[str]) -> int:
    """Run one command line; return its exit code.

    Raises:
        SystemExit: the command has printed its messages; the exception has the code.
    """
    import click

    from unbroken.cli import exits
    from unbroken.cli.commands import cli
    from unbroken.cli.output import abandon_stdout
    from unbroken.cli.terminal import harmless, say
    from unbroken.errors import UnbrokenError

    try:
        return cli.main(list(args), prog_name="unbroken", standalone_mode=False) or 0
    except click.ClickException as exc:
        say(f"unbroken: {harmless(exc.format_message())}")
        if isinstance(exc, click.UsageError) and exc.ctx:
            say(f"Try '{exc.ctx.command_path} --help'.")
        return exc.exit_code
    except click.Abort:  # stdin ended during a question
        say("unbroken: aborted")
        return exits.USAGE
    except UnbrokenError as exc:
        say(f"unbroken: {harmless(str(exc))}")
        return exits.exit_code(exc)
    except OSError as exc:  # the only ones left: click could not write its help
        abandon_stdout()
        say(f"unbroken: {exc.strerror or exc}")
        return exits.UNWRITABLE


def reserve_standard_descriptors() -> None:
    """Occupy the numbers of closed standard streams (``<&-``), so that no socket gets them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
