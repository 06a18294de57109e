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
"""Keys outside of tables: the options of ``unbroken run``, with ``_`` for ``-``, and ``api_key``."""

CONNECTION_KEYS = ("replays", "first_output", "idle", "give_up_after", "ping", "proxy", "no_proxy", "ca_file")
"""Keys about the connection, which hold for the relay too unless ``[relay]`` says otherwise."""

_RELAY_TYPES: Mapping[str, tuple[type, ...]] = {
    "host": (str,),
    "port": (int,),
    "default": (str,),
    "heartbeat": (int, float),
    "early_heartbeat": (bool,),
    "inject_key": (bool,),
    "token_env": (str,),
    "allow_host": (list,),
    "allow_origin": (list,),
    "max_turns": (int,),
    "max_body": (int, str),
    "max_header": (int, str),
    "receive_timeout": (int, float),
    "grace": (int, float),
    "workers": (int,),
    "log_format": (str,),
    "quiet": (bool,),
    **{key: _TYPES[key] for key in CONNECTION_KEYS},
}
"""Keys of ``[relay]``: the options of ``unbroken relay``."""

_UPSTREAM_TYPES: Mapping[str, tuple[type, ...]] = {
    "base_url": (str,),
    "dialect": (str,),
    "api_key_env": (str,),
    "api_key": (str,),
    "proxy": (str,),
    "ca_file": (str,),
}
"""Keys of ``[upstreams.NAME]``."""

_WORDS = {dict: "a table", list: "a list", str: "a string", bool: "true or false", int: "a number"}


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
    for table in (config, config.get("relay", {}), *config.get("upstreams", {}).values()):
        if "ca_file" in table:
            table["ca_file"] = os.path.expanduser(table["ca_file"])  # noqa: PTH111 - a string, like the option
    return config


def _check(path: Path, config: Mapping[str, Any]) -> None:
    _check_table(path, "", config, {**_TYPES, "relay": (dict,), "upstreams": (dict,)})
    _check_table(path, "relay.", config.get("relay", {}), _RELAY_TYPES)
    for name, table in config.get("upstreams", {}).items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: write [upstreams.{name}] and base_url below it")
        _check_table(path, f"upstreams.{name}.", table, _UPSTREAM_TYPES)
    if config.get("format", "text") not in FORMATS:
        raise UsageError(f"{path}: format must be one of {', '.join(FORMATS)}")
    if "api_key" in config and not (config.get("provider") or config.get("base_url")):
        raise UsageError(f"{path}: api_key needs provider or base_url beside it: whose key is it?")


def _check_table(path: Path, prefix: str, table: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    for key, value in table.items():
        if key not in types:
            raise UsageError(f"{path}: unknown key {f'{prefix}{key}'!r}; {_meant(key, types)}")
        if not isinstance(value, types[key]) or (isinstance(value, bool) and bool not in types[key]):
            raise UsageError(f"{path}: {prefix}{key} must be {_WORDS[types[key][0]]}")


def _meant(key: str, types: Mapping[str, tuple[type, ...]]) -> str:
    from difflib import get_close_matches

    if close := get_close_matches(key, types, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(types)}"


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
