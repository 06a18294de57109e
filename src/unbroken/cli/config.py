"""The configuration file: where it is, what may stand in it, and how it is written."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from unbroken.errors import UsageError

FORMATS = ("text", "json", "jsonl")

_TYPES: Mapping[str, tuple[type, ...]] = {
    "provider": (str,),
    "model": (str,),
    "base_url": (str,),
    "api_key_env": (str,),
    "api_key": (str,),
    "system": (str,),
    "format": (str,),
    "show_reasoning": (bool,),
    "quiet": (bool,),
    "verbose": (bool,),
    "replays": (int,),
    "first_output": (int, float),
    "idle": (int, float),
    "give_up_after": (int, float),
    "ping": (int, float),
    "proxy": (str,),
    "no_proxy": (bool,),
    "ca_file": (str,),
}
"""Every key: the options of ``unbroken run``, with ``_`` for ``-``, and ``api_key``."""

_WORDS = {str: "a string", bool: "true or false", int: "a number"}


def config_path() -> Path:
    """Where the file is: ``$UNBROKEN_CONFIG``, or ``config.toml`` in the platform's configuration folder."""
    if explicit := os.environ.get("UNBROKEN_CONFIG"):
        return Path(explicit)
    return Path(click.get_app_dir("unbroken")) / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none.

    Raises:
        UsageError: it cannot be read, is not TOML, or has an unknown key or a value of the wrong type.
    """
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get("UNBROKEN_CONFIG"):  # somebody counts on it: the proxy, say, that stands in it
            raise UsageError(f"UNBROKEN_CONFIG names {path}, which is not there; unbroken init writes it") from None
        return {}
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is not valid TOML: {exc}") from None
    _check(path, config)
    if "ca_file" in config:
        config["ca_file"] = os.path.expanduser(config["ca_file"])  # noqa: PTH111 - it stays a string, like the option
    return config


def _check(path: Path, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key not in _TYPES:
            raise UsageError(f"{path}: unknown key {key!r}; {_meant(key)}")
        if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and bool not in _TYPES[key]):
            raise UsageError(f"{path}: {key} must be {_WORDS[_TYPES[key][0]]}")
    if config.get("format", "text") not in FORMATS:
        raise UsageError(f"{path}: format must be one of {', '.join(FORMATS)}")
    if "api_key" in config and not (config.get("provider") or config.get("base_url")):
        raise UsageError(f"{path}: api_key needs provider or base_url beside it: whose key is it?")


def _meant(key: str) -> str:
    from difflib import get_close_matches

    if close := get_close_matches(key, _TYPES, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(_TYPES)}"


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write the file, readable by nobody else: a key may stand in it, or a proxy's password.

    Raises:
        UsageError: it cannot be written.
    """
    import tempfile

    import tomli_w

    path = Path(os.path.realpath(path))  # a link into somebody's dotfiles stays one
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, unfinished = tempfile.mkstemp(prefix=".unbroken-", dir=path.parent)  # with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write("# Written by unbroken init. Keys are the options of unbroken run, with _ for -.\n")
                file.write(tomli_w.dumps(config))
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None
