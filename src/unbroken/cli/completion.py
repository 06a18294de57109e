"""``unbroken completion``: the script with which a shell completes the command line."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script with which a shell completes commands and options.

    \b
    bash, in ~/.bashrc:
      eval "$(unbroken completion bash)"
    or, with the package bash-completion, in a file that is read when it is needed:
      unbroken completion bash > ~/.local/share/bash-completion/completions/unbroken

    \b
    zsh, in ~/.zshrc, after compinit:
      eval "$(unbroken completion zsh)"
    or in a folder of $fpath, before compinit:
      unbroken completion zsh > ~/.zfunc/_unbroken

    \b
    fish:
      unbroken completion fish > ~/.config/fish/completions/unbroken.fish

    A new shell then completes. bash must be 4.4 or newer; the one of macOS is not.
    """  # noqa: D301 - click's mark
    from click.shell_completion import get_completion_class

    from unbroken.cli.commands import cli

    script = get_completion_class(shell)
    assert script is not None, "click knows all of SHELLS"
    click.echo(script(cli, {}, "unbroken", "_UNBROKEN_COMPLETE").source())
