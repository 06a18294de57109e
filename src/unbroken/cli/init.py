"""``unbroken init``: write the configuration file."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import click

from unbroken.cli.config import config_path, write_config
from unbroken.cli.prompt import as_text
from unbroken.errors import UsageError

_LONGEST_KEY = 16 * 1024

_KEY = re.compile(r"[\x20-\x7e\xa0-\xff]+")
"""What may stand in a field of HTTP (RFC 9110, section 5.5)."""


@click.command("init")
@click.option("--provider", metavar="NAME", help="Preset to ask by default.")
@click.option("--model", metavar="NAME", help="Model to ask by default.")
@click.option("--base-url", metavar="URL", help="What stands before /chat/completions, where it is not the preset's.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the key.")
@click.option("--proxy", metavar="URL", help="Proxy for every request.")
@click.option("--store-key", is_flag=True, help="Ask for the key (or read it from stdin) and store it in the file.")
@click.option("--force", is_flag=True, help="Replace a file that is already there.")
def command(store_key: bool, force: bool, **settings: Any) -> None:
    """Write the configuration file of unbroken run.

    Asks what it needs to know, or takes it from flags. A key is only stored when told to; it is better kept in the
    environment variable that the provider's other tools already read. Nobody else can read the file.

    \b
      unbroken init
      unbroken init --provider deepseek --model deepseek-reasoner
      pass show deepseek | unbroken init --provider deepseek --store-key

    Every option of unbroken run can be added to it by hand, with _ for -, such as first_output = 1800.
    """  # noqa: D301 - click's mark
    path = config_path()
    if os.path.exists(path) and not force:  # noqa: PTH110 - a path that no file can have is no error here
        raise UsageError(f"{path} is already there; edit it, or replace it with --force")
    if not any(settings.values()):
        settings = _ask()
    config = {key: as_text(f"--{key.replace('_', '-')}", value) for key, value in settings.items() if value}
    _check(config)
    if store_key:
        config["api_key"] = _read_key(config)
    write_config(path, config)
    click.echo(f"wrote {path}", err=True)


def _ask() -> dict[str, Any]:
    if not sys.stdin or not sys.stdin.isatty():
        raise UsageError("nobody to ask: give at least --provider or --base-url")
    question = "Provider, or the base URL of a server"
    name = _prompt(question, value_proc=_provider_answer, default="deepseek")
    if "://" in name:
        model = _prompt("Model", default="default")
        question = "Environment variable with its key (empty: none)"
        key_env = _prompt(question, default="", value_proc=_variable)
        return {"base_url": name, "model": model, "api_key_env": key_env}
    from unbroken.core.providers import find_provider

    return {"provider": name, "model": _prompt("Model", default=find_provider(name).model)}


def _prompt(question: str, **options: Any) -> str:
    try:
        answer: str = click.prompt(question, err=True, **options)
    except UnicodeDecodeError:
        raise UsageError("what was typed is not UTF-8 text") from None
    return answer


def _provider_answer(text: str) -> str:
    return _valid(text, {"base_url" if "://" in text else "provider": text})


def _variable(text: str) -> str:
    return _valid(text, {"base_url": "http://localhost", "api_key_env": text})


def _valid(text: str, config: dict[str, Any]) -> str:
    """Return an answer to a question; click asks again if it is invalid."""
    try:
        _check(config)
    except UsageError as exc:
        raise click.UsageError(str(exc)) from None
    return text


def _check(config: dict[str, Any]) -> None:
    """Refuse settings that unbroken run would refuse later."""
    from unbroken.cli.provider_selection import select_provider
    from unbroken.core.providers import check_base_url, find_provider
    from unbroken.wire.proxies import parse_proxy

    select_provider([config], {})
    if name := config.get("provider"):
        find_provider(name)
    if url := config.get("base_url"):
        check_base_url(url)
    if proxy := config.get("proxy"):
        parse_proxy(proxy, "--proxy")


def _read_key(config: dict[str, Any]) -> str:
    if not (config.get("provider") or config.get("base_url")):
        raise UsageError("--store-key needs --provider or --base-url: whose key is it?")
    on_terminal = sys.stdin and sys.stdin.isatty()
    key = _prompt("API key", hide_input=True) if on_terminal else _read_line()
    if not key.strip():
        raise UsageError("--store-key was given, but no key")
    if not _KEY.fullmatch(key.strip()):  # it is not shown
        raise UsageError("the key has characters that HTTP cannot carry: was something else copied?")
    return key.strip()


def _read_line() -> str:
    """Return the first line of stdin, which may have no end, and which the locale need not be able to decode."""
    try:
        line: bytes = sys.stdin.buffer.readline(_LONGEST_KEY + 1) if sys.stdin else b""
    except OSError as exc:
        raise UsageError(f"cannot read the key from stdin: {exc.strerror}") from None
    if len(line) > _LONGEST_KEY:
        raise UsageError(f"the first line of stdin is no key: it is longer than {_LONGEST_KEY} bytes")
    return line.decode("utf-8-sig", "replace")
