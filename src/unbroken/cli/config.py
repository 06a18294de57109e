"""The configuration file: where it is, what may stand in it, and how it is written."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unbroken.errors import UsageError

_TYPES: Mapping[str, tuple[type, ...]] = {
    "provider": (str,),
    "model": (str,),
    "base_url": (str,),
    "api_key_env": (str,),
    "api_key": (str,),
    "system": (str,),
    "show_reasoning": (bool,),
    "format": (str,),
    "replays": (int,),
    "idle": (int, float),
    "first_output": (int, float),
    "give_up_after": (int, float),
    "ping": (int, float),
    "proxy": (str,),
    "ca_file": (str,),
}
"""Every key: the options of ``unbroken run``, with ``_`` for ``-``, and ``api_key``."""

_WHO = ("provider", "base_url", "model", "api_key_env", "api_key")
"""Settings that only make sense together: they say who is asked, and with which key."""


def config_path() -> Path:
    """Where the file is: ``$UNBROKEN_CONFIG``, or ``config.toml`` in the platform's configuration folder."""
    if explicit := os.environ.get("UNBROKEN_CONFIG"):
        return Path(explicit)
    from platformdirs import user_config_path

    return user_config_path("unbroken", appauthor=False) / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none.

    Raises:
        UsageError: it cannot be read, is not TOML, or has an unknown key or a value of the wrong type.
    """
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is not valid TOML: {exc}") from None
    for key, value in config.items():
        if key not in _TYPES:
            raise UsageError(f"{path}: unknown key {key!r}; known are {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and bool not in _TYPES[key]):
            wanted = {"str": "a string", "bool": "true or false", "int": "a number"}[_TYPES[key][0].__name__]
            raise UsageError(f"{path}: {key} must be {wanted}")
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write the file, readable by nobody else where it holds a key.

    Raises:
        UsageError: it cannot be written.
    """
    import tomli_w

    mode = 0o600 if "api_key" in config else 0o644
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(tomli_w.dumps(config))
        unfinished.replace(path)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None


class ConfiguredCommand(click.Command):
    """A command whose defaults come from the configuration file; environment and flags win over it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the file before the arguments are parsed, but not for ``--help``."""
        if not {"-h", "--help"} & set(args):
            extra["default_map"] = read_config(config_path())
        return super().make_context(info_name, args, parent, **extra)


def who_is_asked(ctx: click.Context) -> dict[str, Any]:
    """The settings that say who is asked, taken from one place only.

    A flag or the environment that names a provider or a URL switches off what the file says of another one: the key in
    the file must not go there.
    """
    config: Mapping[str, Any] = ctx.default_map or {}
    chosen: dict[str, Any] = {key: ctx.params.get(key) for key in _WHO if key != "api_key"}
    nearer = [key for key in ("provider", "base_url") if _is_nearer(ctx, key) and chosen[key] != config.get(key)]
    if nearer:
        return {key: value if _is_nearer(ctx, key) else None for key, value in chosen.items()} | {"api_key": None}
    return chosen | {"api_key": None if _is_nearer(ctx, "api_key_env") else config.get("api_key")}


def _is_nearer(ctx: click.Context, key: str) -> bool:
    return ctx.get_parameter_source(key) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
