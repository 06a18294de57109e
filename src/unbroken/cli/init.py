"""``unbroken init``: write the configuration file."""

from __future__ import annotations

import sys
from typing import Any

import click

from unbroken.cli.config import config_path, write_config
from unbroken.errors import UsageError


@click.command("init", short_help="Write the configuration file.")
@click.option("--provider", metavar="NAME", help="Preset to ask by default.")
@click.option("--model", metavar="NAME", help="Model to ask by default.")
@click.option("--base-url", metavar="URL", help="URL before /chat/completions, where it is not the preset's.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the key.")
@click.option("--proxy", metavar="URL", help="Proxy for every request.")
@click.option("--store-key", is_flag=True, help="Ask for the key and store it in the file (mode 0600).")
@click.option("--force", is_flag=True, help="Replace a file that is already there.")
def command(store_key: bool, force: bool, **settings: Any) -> None:
    """Write the configuration file of `unbroken run`.

    Asks what it needs to know, or takes it from flags. A key is only stored when told to; it is better kept in the
    environment variable that the provider's other tools already read.

    \b
      unbroken init
      unbroken init --provider deepseek --model deepseek-reasoner
    """
    path = config_path()
    if path.exists() and not force:
        raise UsageError(f"{path} is already there; edit it, or replace it with --force")
    if not any(settings.values()):
        settings = _ask()
    config = {key: value for key, value in settings.items() if value}
    _check(config)
    if store_key:
        config["api_key"] = _read_key()
    write_config(path, config)
    click.echo(f"wrote {path}", err=True)


def _ask() -> dict[str, Any]:
    from unbroken.client.providers import PROVIDERS

    if not sys.stdin.isatty():
        raise UsageError("nobody to ask: give at least --provider or --base-url")
    name = click.prompt("Provider, or the base URL of a server", type=str, err=True, default="deepseek")
    if "://" in name:
        model = click.prompt("Model", type=str, default="default", err=True)
        key_env = click.prompt("Environment variable with its key (empty: none)", default="", err=True)
        return {"base_url": name, "model": model, "api_key_env": key_env}
    preset = PROVIDERS.get(name)
    model = click.prompt("Model", type=str, default=preset.model if preset else "", err=True)
    return {"provider": name, "model": model}


def _check(config: dict[str, Any]) -> None:
    """Refuse now what `unbroken run` would refuse later."""
    from unbroken.client.providers import find_provider
    from unbroken.core.http import check_url
    from unbroken.wire.proxies import parse_proxy

    if name := config.get("provider"):
        find_provider(name)
    if url := config.get("base_url"):
        check_url(url)
    if proxy := config.get("proxy"):
        parse_proxy(proxy, "--proxy")


def _read_key() -> str:
    key: str = click.prompt("API key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise UsageError("--store-key was given, but no key")
    return key.strip()
