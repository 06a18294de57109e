"""What ``unbroken relay`` and ``unbroken exec`` have in common: options, upstreams and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.config import CONNECTION_KEYS, config_path, read_config
from unbroken.cli.connection import add_options, connection_options, policy_from, proxy_from
from unbroken.cli.options import ConfiguredCommand, option, seconds
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.relay.settings import Settings, Upstream

PREFIX = "UNBROKEN_RELAY_"
WHERE, CARE = "Where it forwards to", "What clients see"

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    option(
        WHERE,
        "--upstream NAME=URL",
        "A server besides the presets, or in the place of one; may be repeated.",
        prefix=PREFIX,
        multiple=True,
    ),
    option(WHERE, "--default NAME", "Upstream of /v1/...; by default the first whose key is set.", prefix=PREFIX),
    option(
        CARE,
        "--heartbeat SECONDS",
        "Silence after which a waiting client is sent something harmless (15); 0 for never.",
        prefix=PREFIX,
        type=seconds,
    ),
    option(
        CARE,
        "--early-heartbeat",
        "Also before the upstream has answered: a late error is then no HTTP status any more.",
        prefix=PREFIX,
        is_flag=True,
    ),
)


class RelayCommand(ConfiguredCommand):
    """A command whose defaults come from ``[relay]`` of the configuration file, and from what stands above it."""

    def defaults(self, config: dict[str, Any]) -> dict[str, Any]:
        """What of the file this command goes by."""
        own: dict[str, Any] = config.get("relay", {})
        return {key: config[key] for key in CONNECTION_KEYS if key in config} | own


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every relay has."""
    return add_options(connection_options(command), _OPTIONS)


def settings_from(
    ctx: click.Context, options: Mapping[str, Any], upstreams: Mapping[str, Upstream], **more: Any
) -> Settings:
    """The settings that the options ask for.

    Args:
        ctx: click's, for where a setting comes from.
        options: the command's.
        upstreams: where to forward to.
        more: further settings; ``None`` for the usual value.

    Raises:
        UsageError: they do not go together.
    """
    from unbroken.relay.settings import Settings

    given = {key: options[key] for key in ("heartbeat", "early_heartbeat")} | more
    return Settings(
        upstreams=upstreams,
        default=default_upstream(options["default"], options["upstream"], upstreams, os.environ),
        policy=policy_from(options),
        proxy=proxy_from(ctx, options),
        verify=options["ca_file"] or True,
        **{key: value for key, value in given.items() if value is not None},
    )


def find_upstreams(
    given: tuple[str, ...], environ: Mapping[str, str], *, inject: bool = False, redirected: bool = False
) -> dict[str, Upstream]:
    """Every upstream: the presets, what the configuration file says, and what the command line says, in this order.

    Args:
        given: ``NAME=URL`` each.
        environ: the environment, for keys and URLs.
        inject: whether keys are wanted.
        redirected: whether the variables by which users redirect a provider count.

    Raises:
        UsageError: one of them is none.
    """
    from unbroken.core.providers import PROVIDERS

    tables: dict[str, dict[str, Any]] = {
        name: {"base_url": preset.base_url, "dialect": preset.dialect, "api_key_env": preset.key_env}
        for name, preset in PROVIDERS.items()
    }
    if redirected:
        for name, preset in PROVIDERS.items():
            if url := environ.get(preset.base_url_env, ""):
                tables[name]["base_url"] = url
    for name, table in read_config(config_path()).get("upstreams", {}).items():
        tables[name] = tables.get(name, {}) | table
    for text in given:
        name, equals, url = text.partition("=")
        if not equals or not url:
            raise UsageError(f"--upstream takes NAME=URL, not {text!r}")
        # A key of the file or of a preset is not for whoever stands there now.
        kept = {"dialect": tables[name]["dialect"]} if name in tables and "dialect" in tables[name] else {}
        tables[name] = kept | {"base_url": url}
    return {name: _upstream(name, table, environ, inject=inject) for name, table in tables.items()}


def _upstream(name: str, table: Mapping[str, Any], environ: Mapping[str, str], *, inject: bool) -> Upstream:
    from unbroken.relay.settings import Upstream

    if "base_url" not in table:
        raise UsageError(f"the upstream {name!r} needs a base_url")
    key_env = table.get("api_key_env", "")
    key = environ.get(key_env, "").strip() or table.get("api_key")
    return Upstream(
        name,
        table["base_url"],
        table.get("dialect", "openai-chat"),
        key if inject else None,
        key_env,
        table.get("proxy"),
        table.get("ca_file"),
    )


def default_upstream(
    named: str | None, given: tuple[str, ...], upstreams: Mapping[str, Upstream], environ: Mapping[str, str]
) -> str:
    """The upstream of ``/v1/...``: the one that is named, the only one of the command line, the configured provider,
    or the first whose key is set; ``""`` where there is none.
    """
    if named:
        return named
    if len(given) == 1:
        return given[0].partition("=")[0]
    provider = str(read_config(config_path()).get("provider", "")).lower()
    if provider in upstreams:
        return provider
    return next((name for name, upstream in upstreams.items() if environ.get(upstream.key_env or " ")), "")
