"""Options from the command line, the environment or the configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from unbroken.cli.config import config_path, read_config, readers_warning
from unbroken.errors import UsageError

_YEAR = 365 * 24 * 3600.0

_COLUMN = 26
"""Width of the names of most options, so that the sections of the help line up."""

_WARNING = "unbroken.readers_warning"
"""Key of click's ``Context.meta``."""

_RANKS = {ParameterSource.DEFAULT_MAP: 1, ParameterSource.ENVIRONMENT: 2, ParameterSource.COMMANDLINE: 3}


def seconds(value: Any) -> float:
    """Convert a duration. More than a year, or infinity, is more than a socket accepts.

    Raises:
        click.BadParameter: it is not a duration.
    """
    try:
        duration = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds") from None
    except OverflowError:  # an integer of the file
        duration = float("inf")
    if not 0 <= duration <= _YEAR:  # NaN neither
        raise click.BadParameter(f"{value} is not between 0 and a year, in seconds")
    return duration


def count(value: Any) -> int:
    """Convert a number of things, at least one.

    Raises:
        click.BadParameter: it is not such a number.
    """
    return _whole(value, 1, None, "a number above 0")


def port(value: Any) -> int:
    """Convert a port to listen on.

    Raises:
        click.BadParameter: it is not a port.
    """
    return _whole(value, 0, 65535, "a port, which is a number up to 65535")


def _whole(value: Any, least: int, most: int | None, what: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise click.BadParameter(f"{str(value)!r} is not {what}")
    return number


_SIZE = re.compile(r"(\d+)\s*([kKmMgG]?)(?:i?[bB])?")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def size(value: Any) -> int:
    """Convert a size in bytes, such as ``65536`` or ``64K``.

    Raises:
        click.BadParameter: it is not a size.
    """
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise click.BadParameter(f"{value!r} is not a size such as 65536, 64K or 16M")
    return int(found[1]) * _UNITS[found[2].lower()]


class _Option(click.Option):
    """An option in a section of the help."""

    def __init__(self, *args: Any, section: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


def option(
    section: str, spelled: str, text: str, *, prefix: str = "UNBROKEN_", **settings: Any
) -> Callable[[Any], Any]:
    """Make an option of :class:`ConfiguredCommand`, which may also be given as ``UNBROKEN_<ITS NAME>``.

    Args:
        section: heading of its section of the help.
        spelled: its names, the longest first, and the placeholder of its value, as in ``"--model NAME"``.
        text: its help.
        prefix: the prefix of its variable.
        settings: further arguments of :class:`click.Option`.
    """
    names = [word for word in spelled.split() if word.startswith("-")]
    metavar = spelled.split()[-1]
    if metavar not in names:
        settings["metavar"] = metavar
    variable = prefix + names[0].partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, cls=_Option, section=section, envvar=variable, help=text, **settings)


class ConfiguredCommand(click.Command):
    """A command whose defaults come from the configuration file; environment and flags take precedence.

    Args:
        warns_itself: whether the command calls :func:`warn_of_readers` itself, because its first line is another one.
        settings: see :class:`click.Command`.
    """

    def __init__(self, *args: Any, warns_itself: bool = False, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._warns_itself = warns_itself

    def defaults(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the file that this command uses."""
        return {key: value for key, value in config.items() if not isinstance(value, dict)}

    def _listed(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the settings with a list for each option that may be repeated, where the file has a single one."""
        repeated = {param.name for param in self.params if isinstance(param, click.Option) and param.multiple}
        return {
            key: [value] if key in repeated and isinstance(value, str) else value for key, value in defaults.items()
        }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the file, and then the arguments. ``--help`` needs no valid file, and shell completion none at all."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        path, refused = config_path(), None
        try:
            config = read_config(path)
        except UsageError as exc:
            refused = exc
        else:
            ctx.default_map = self._listed(self.defaults(config))
            ctx.meta[_WARNING] = readers_warning(path, config)
        rest = super().parse_args(ctx, args)
        if refused:
            raise refused
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, after a warning if others can read the keys of the file."""
        if not self._warns_itself:
            warn_of_readers(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl([(names.ljust(_COLUMN), text) for names, text in records], col_max=_COLUMN)


def warn_of_readers(ctx: click.Context) -> None:
    """Print a warning if other users can read the keys of the configuration file, unless ``--quiet`` was given."""
    warning = ctx.meta.get(_WARNING)
    if not warning or ctx.params.get("quiet"):
        return
    import json

    from unbroken.cli.terminal import harmless, say

    as_json = ctx.params.get("log_format") == "json"  # in which every line is in that format
    say(json.dumps({"warning": warning}) if as_json else f"unbroken: {harmless(warning)}")


def rank(ctx: click.Context, name: str) -> int:
    """Return the precedence of a setting's source: 3 for a flag, 2 for the environment, 1 for the file, 0 for none."""
    source = ctx.get_parameter_source(name)
    return _RANKS.get(source, 0) if source else 0


def given(ctx: click.Context, source: ParameterSource) -> dict[str, Any]:
    """Return the settings that come from one source."""
    return {name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) is source}
