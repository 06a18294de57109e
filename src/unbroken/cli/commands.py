"""The commands by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from unbroken import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS = {
    "run": "Ask a model and stream its answer, whatever the connection does.",
    "exec": "Run a program whose turns shall survive: aider, claude, opencode, your own.",
    "relay": "Serve the rule to every program that takes a base URL.",
    "init": "Write the configuration file.",
    "demo": "Watch a real model's turn survive a cut connection. No key, no network.",
    "lab": "Break connections on purpose: a scripted upstream, a cutting proxy.",
    "doctor": "Find out where and why turns die on your path, and what helps.",
    "completion": "Print the script with which bash, zsh or fish completes commands and options.",
}


class _Commands(click.Group):
    """A group that imports only the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"unbroken.cli.{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command; click would import every command for its help."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Resolve as click does, but suggest a command for an unknown name."""
        name = args[0]
        if name in _COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"there is no command {name!r}; {_meant(name)}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _meant(name: str) -> str:
    from difflib import get_close_matches

    if close := get_close_matches(name, _COMMANDS, n=1):
        return f"did you mean '{close[0]}'?"
    if " " in name:
        return "to ask a model, say: unbroken run ..."
    return f"there are {', '.join(_COMMANDS)}"


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Keep streaming LLM turns alive.

    A reasoning model is silent for a long time before its first token; something on the way takes the connection for
    idle and cuts it. Unbroken prevents the cut (HTTP/2 PING), replays what was cut before the first token, and never
    passes a truncated answer off as a whole one.

    \b
      unbroken demo                  see it work; no key, no network
      unbroken run "Why is the sky blue?"
      git diff | unbroken run "Review this change"
      unbroken exec -- aider         any program that takes a base URL
      unbroken relay                 several of them, with a status page

    \b
    Exit codes:
      0  answered
      1  the answer could not be written (disk full)
      2  usage: an option, the configuration, a missing key or prompt
      3  refused by the provider: key, quota, bad request, no model there
      4  the stream was lost, or no output came in time
      5  the provider was unreachable or overloaded to the end of the budget
      130, 143  interrupted by Ctrl-C, by SIGTERM
      141  whoever read stdout has left
    """  # noqa: D301 - click's mark
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
