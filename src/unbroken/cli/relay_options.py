"""Options and settings that ``unbroken relay`` and ``unbroken exec`` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.config import CONNECTION_KEYS
from unbroken.cli.connection import add_options, connection_options, policy_from, proxy_from
from unbroken.cli.options import ConfiguredCommand, option, seconds
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.relay.settings import Settings, UpstreamSettings

PREFIX = "UNBROKEN_RELAY_"
WHERE, CARE = "Where it forwards to", "What clients see"

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    option(
        WHERE,
        "--upstream NAME=URL",
        "A server besides the presets, or in the place of one. May be repeated.",
        prefix=PREFIX,
        multiple=True,
    ),
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
        "Also before the upstream has answered; an error status then comes as an event.",
        prefix=PREFIX,
        is_flag=True,
    ),
)


class RelayCommand(ConfiguredCommand):
    """A command whose defaults come from ``[relay]`` of the configuration file, and from the keys above it."""

    def defaults(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the file that this command uses."""
        own: dict[str, Any] = config.get("relay", {})
        inherited = {key: config[key] for key in CONNECTION_KEYS if key in config}
        for key, opposite in (("proxy", "no_proxy"), ("no_proxy", "proxy")):
            if own.get(key):  # it takes precedence
                inherited.pop(opposite, None)
        return inherited | own


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every relay has."""
    return add_options(connection_options(command), _OPTIONS)


def settings_from(
    ctx: click.Context, options: Mapping[str, Any], upstreams: Mapping[str, UpstreamSettings], **more: Any
) -> Settings:
    """Return the settings that the options ask for.

    Args:
        ctx: click's context, for the source of a setting.
        options: the command's options.
        upstreams: the upstreams to forward to.
        more: further settings; ``None`` for the default.

    Raises:
        UsageError: they cannot be combined, or a proxy or a CA file cannot be used.
    """
    from unbroken.relay.settings import Settings

    given = {key: options[key] for key in ("heartbeat", "early_heartbeat")} | more
    settings = Settings(
        upstreams=upstreams,
        policy=policy_from(options),
        continuation=options["continuation"],
        proxy=proxy_from(ctx, options),
        verify=options["ca_file"] or True,
        journal=str(ctx.command.name) if options["journal"] else "",
        **{key: value for key, value in given.items() if value is not None},
    )
    _check_way(settings)
    return settings


def _check_way(settings: Settings) -> None:
    """Refuse a proxy or CA file now that would fail every request later."""
    from unbroken.wire.proxies import parse_paths
    from unbroken.wire.tls import check_environment, client_context

    if isinstance(settings.verify, str):
        client_context(settings.verify)
    else:
        check_environment()
    for upstream in settings.upstreams.values():
        try:
            if upstream.proxy is not None:
                parse_paths(upstream.proxy, "the proxy")
            if upstream.ca_file:
                client_context(upstream.ca_file)
        except UsageError as exc:
            raise UsageError(f"[upstreams.{upstream.name}]: {exc}") from None
