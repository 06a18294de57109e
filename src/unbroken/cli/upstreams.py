"""The upstreams of a relay: the presets, and those of the file, the environment and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unbroken.cli.config import config_path, read_config
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.core.continuation.format import Style
    from unbroken.relay.settings import UpstreamSettings


def parse_upstreams(given: Sequence[str]) -> dict[str, str]:
    """Return URLs by name, from texts like ``NAME=URL``.

    Raises:
        UsageError: a text has another form.
    """
    urls = {}
    for text in given:
        name, _, url = text.partition("=")
        if not name or not url:
            raise UsageError(f"--upstream takes NAME=URL, such as work=https://llm.example.com/v1, not {text!r}")
        urls[name] = url
    return urls


def find_upstreams(
    given: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    inject: bool = False,
    redirected: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, UpstreamSettings]:
    """Return every upstream: the presets, those of the file, and those that take precedence over it, in this order.

    Args:
        given: URLs of the command line, by name.
        environ: the environment, for keys.
        inject: whether the upstreams get keys.
        redirected: those that variables of the environment name, in the form of the file.

    Raises:
        UsageError: an upstream is invalid.
    """
    from unbroken.core.providers import PROVIDERS

    tables: dict[str, dict[str, Any]] = {
        name: {
            "base_url": preset.base_url,
            "dialect": preset.dialect,
            "api_key_env": preset.key_env,
            "replays": preset.replays,
        }
        for name, preset in PROVIDERS.items()
    }
    for name, table in read_config(config_path()).get("upstreams", {}).items():
        tables[name] = tables.get(name, {}) | table
    nearer = dict(redirected or {}) | {name: {"base_url": url} for name, url in given.items()}
    for name, table in nearer.items():
        # Proxy and CA file are kept; a key of the file or of a preset must not be sent to another server.
        kept = {key: value for key, value in tables.get(name, {}).items() if not key.startswith("api_key")}
        tables[name] = kept | table
    return {name: _upstream(name, table, environ, inject=inject) for name, table in tables.items()}


def default_upstream(
    named: str | None, given: Mapping[str, str], upstreams: Mapping[str, UpstreamSettings], environ: Mapping[str, str]
) -> str:
    """Return the upstream of ``/v1/...``: the one that is named, the only one of the command line, the configured
    provider, or the first whose key is set; ``""`` if there is none.
    """
    if named:
        return named
    if len(given) == 1:
        return next(iter(given))
    provider = str(read_config(config_path()).get("provider", "")).lower()
    if provider in upstreams:
        return provider
    return next((name for name, one in upstreams.items() if environ.get(one.key_env, "").strip()), "")


def _upstream(name: str, table: Mapping[str, Any], environ: Mapping[str, str], *, inject: bool) -> UpstreamSettings:
    from unbroken.core.dialects import DEFAULT, DIALECTS
    from unbroken.relay.settings import UpstreamSettings

    if "base_url" not in table:
        raise UsageError(f"[upstreams.{name}] needs a base_url")
    dialect, dialects = table.get("dialect", DEFAULT.name), DIALECTS.names
    if dialect not in dialects:
        raise UsageError(f"[upstreams.{name}]: there is no dialect {dialect!r}; known are {', '.join(dialects)}")
    key_env = table.get("api_key_env", "")
    if key_env and not key_env.isidentifier():  # it may be the key itself, so it is not shown
        raise UsageError(f"[upstreams.{name}]: api_key_env takes the name of an environment variable, not a key")
    key = environ.get(key_env, "").strip() or table.get("api_key")
    if "paths" in table and "proxy" in table:
        raise UsageError(f"[upstreams.{name}]: proxy and paths exclude each other")
    return UpstreamSettings(
        name,
        table["base_url"],
        dialect,
        key if inject else None,
        key_env,
        proxy=_paths(name, table),
        **{key: table[key] for key in ("ca_file", "accept_done", "hold", "background", "replays") if key in table},
        continuation=_continuation(name, table),
    )


def _paths(name: str, table: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    from unbroken.wire.proxies import GivenProxy

    source = f"[upstreams.{name}]"
    if "paths" in table:
        return tuple(GivenProxy(path, source) for path in table["paths"])
    return GivenProxy(table["proxy"], source) if "proxy" in table else None


def _continuation(name: str, table: Mapping[str, Any]) -> Style | None:
    """Return the style in which an upstream continues an answer: its own, or a preset's if it is that server."""
    from unbroken.core.continuation.format import style_named
    from unbroken.core.providers import PROVIDERS

    try:
        if style := style_named(table.get("continuation")):
            return style
    except UsageError as exc:
        raise UsageError(f"[upstreams.{name}]: {exc}") from None
    preset = PROVIDERS.get(name)
    return preset.continuation if preset and preset.base_url == table["base_url"] else None
