"""The configuration file: its path, its keys, reading and writing."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from unbroken.errors import UsageError

FORMATS = ("text", "json", "jsonl")

HOLDS = ("prelude", "reasoning", "answer")
"""The choices of ``Policy.hold``; a copy, so that the help does not import the core."""

MAX_FILE = 1024 * 1024
"""Bytes of a file; a longer one is not a configuration."""


class Kind(NamedTuple):
    """The allowed types of a value in the file."""

    types: tuple[type, ...]
    words: str


TEXT = Kind((str,), "a string")
TEXTS = Kind((list,), "a list of strings")
TEXT_OR_TEXTS = Kind((str, list), "a string, or a list of strings")
WHOLE = Kind((int,), "a number")
NUMBER = Kind((int, float), "a number")
SIZE = Kind((int, str), 'a number of bytes, or a size such as "16M"')
SWITCH = Kind((bool,), "true or false")
TABLE = Kind((dict,), "a table")

CONNECTION_KEYS: Mapping[str, Kind] = {
    "hold": TEXT,
    "replays": WHOLE,
    "first_output": NUMBER,
    "idle": NUMBER,
    "stall": NUMBER,
    "stall_output": NUMBER,
    "revive": NUMBER,
    "give_up_after": NUMBER,
    "accept_done": SWITCH,
    "after_output": TEXT,
    "background": SWITCH,
    "continuation": TEXT,
    "ping": NUMBER,
    "connect": NUMBER,
    "proxy": TEXT_OR_TEXTS,
    "no_proxy": SWITCH,
    "ca_file": TEXT,
    "journal": SWITCH,
}
"""Keys about the connection, which apply to the relay too unless ``[relay]`` overrides them."""

KEYS: Mapping[str, Kind] = {
    "provider": TEXT,
    "model": TEXT,
    "base_url": TEXT,
    "api_key_env": TEXT,
    "api_key": TEXT,
    "dialect": TEXT,
    "system": TEXT,
    "format": TEXT,
    "show_reasoning": SWITCH,
    "quiet": SWITCH,
    "verbose": SWITCH,
    **CONNECTION_KEYS,
}
"""Keys outside of tables: the options of ``unbroken run``, with ``_`` for ``-``, and ``api_key``."""

RELAY_KEYS: Mapping[str, Kind] = {
    "default": TEXT,
    "inject_key": SWITCH,
    "heartbeat": NUMBER,
    "early_heartbeat": SWITCH,
    "host": TEXT,
    "port": WHOLE,
    "token_env": TEXT,
    "allow_host": TEXTS,
    "allow_origin": TEXTS,
    "max_turns": WHOLE,
    "max_body": SIZE,
    "max_held": SIZE,
    "max_header": SIZE,
    "receive_timeout": NUMBER,
    "send_timeout": NUMBER,
    "grace": NUMBER,
    "keep": NUMBER,
    "store": TEXT,
    "max_kept": SIZE,
    "attach_identical": SWITCH,
    "workers": WHOLE,
    "plain_asgi": SWITCH,
    "log_format": TEXT,
    "quiet": SWITCH,
    **CONNECTION_KEYS,
}
"""Keys of ``[relay]``: the options of ``unbroken relay``."""

UPSTREAM_KEYS: Mapping[str, Kind] = {
    "base_url": TEXT,
    "dialect": TEXT,
    "api_key_env": TEXT,
    "api_key": TEXT,
    "proxy": TEXT,
    "paths": TEXTS,
    "ca_file": TEXT,
    "accept_done": SWITCH,
    "hold": TEXT,
    "background": SWITCH,
    "continuation": TEXT,
}
"""Keys of ``[upstreams.NAME]``."""


def config_path() -> Path:
    """Return the path of the file: ``$UNBROKEN_CONFIG``, or ``config.toml`` in the platform's configuration folder."""
    if explicit := os.environ.get("UNBROKEN_CONFIG"):
        return Path(explicit)
    return Path(click.get_app_dir("unbroken")) / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """Read the file; return an empty dictionary if it does not exist.

    Raises:
        UsageError: it cannot be read, is not TOML, or has an unknown key or a value of the wrong type; or
            ``UNBROKEN_CONFIG`` names a file that does not exist.
    """
    try:
        data = _read(path)
    except FileNotFoundError:
        if os.environ.get("UNBROKEN_CONFIG"):  # the user relies on its settings, such as a proxy
            raise UsageError(f"UNBROKEN_CONFIG names {path}, which is not there; unbroken init writes it") from None
        return {}
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from None
    import tomllib  # most have no file

    try:
        config = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:  # a TOML or UTF-8 error, a number or nesting that Python cannot take
        raise UsageError(f"{path} is not valid TOML: {exc}") from None
    _check(path, config)
    for table in (config, config.get("relay", {}), *config.get("upstreams", {}).values()):
        if "ca_file" in table:
            table["ca_file"] = os.path.expanduser(table["ca_file"])  # noqa: PTH111 - a string, like the option
    return config


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:  # /dev/zero has no end
        raise UsageError(f"{path} is longer than {MAX_FILE >> 20} MiB: is it a configuration file?")
    return data


def readers_warning(path: Path, config: Mapping[str, Any]) -> str:
    """Return a warning if the file holds a key or a password and other users may read it; ``""`` if not.

    Windows has no such permissions; a profile's folder is closed to other users there.
    """
    tables = (config, config.get("relay", {}), *config.get("upstreams", {}).values())
    if sys.platform == "win32" or not any(_holds_secret(table) for table in tables):
        return ""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if not stat.S_ISREG(mode) or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    return f"{path} holds a key or a password, and other users can read it; chmod 600 {shlex.quote(str(path))}"


def _holds_secret(table: Mapping[str, Any]) -> bool:
    proxies = table.get("proxy", [])
    urls = [*([proxies] if isinstance(proxies, str) else proxies), *table.get("paths", [])]
    return bool(table.get("api_key") or any(map(_holds_password, urls)))


def _holds_password(url: str) -> bool:
    credentials, at, _ = url.rpartition("@")
    return bool(at and ":" in credentials.rpartition("/")[2])


def _check(path: Path, config: Mapping[str, Any]) -> None:
    _check_table(path, "", config, {**KEYS, "relay": TABLE, "upstreams": TABLE})
    _check_table(path, "relay.", config.get("relay", {}), RELAY_KEYS)
    for name, table in config.get("upstreams", {}).items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: write [upstreams.{name}] and base_url below it")
        _check_table(path, f"upstreams.{name}.", table, UPSTREAM_KEYS)
    if config.get("format", "text") not in FORMATS:
        raise UsageError(f"{path}: format must be one of {', '.join(FORMATS)}")
    for table in (config, config.get("relay", {}), *config.get("upstreams", {}).values()):
        if table.get("hold", HOLDS[0]) not in HOLDS:
            raise UsageError(f"{path}: hold must be one of {', '.join(HOLDS)}")
    if "api_key" in config and not (config.get("provider") or config.get("base_url")):
        raise UsageError(f"{path}: api_key needs provider or base_url beside it: whose key is it?")


def _check_table(path: Path, prefix: str, table: Mapping[str, Any], keys: Mapping[str, Kind]) -> None:
    for key, value in table.items():
        if key not in keys:
            raise UsageError(f"{path}: unknown key {f'{prefix}{key}'!r}; {_meant(key, keys)}")
        if not _is(value, keys[key]):
            raise UsageError(f"{path}: {prefix}{key} must be {keys[key].words}")
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):  # no argument or variable could hold it
            raise UsageError(f"{path}: {prefix}{key} has a NUL character")


def _is(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool):  # a bool is an int, too
        return bool in kind.types
    if isinstance(value, list):
        return list in kind.types and all(isinstance(item, str) for item in value)
    return isinstance(value, kind.types)


def _meant(key: str, keys: Mapping[str, Kind]) -> str:
    from difflib import get_close_matches

    if close := get_close_matches(key, keys, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(keys)}"


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write the file, readable only by the user: it may contain a key, or a proxy's password.

    Raises:
        UsageError: it cannot be written.
    """
    import tempfile

    import tomli_w

    path = Path(os.path.realpath(path))  # keep a symbolic link, for example into dotfiles
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
