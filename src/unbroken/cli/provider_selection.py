"""Provider selection: provider, model and key from the file, the environment and the flags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unbroken.core.providers import PROVIDERS
from unbroken.errors import UsageError

SELECTION = ("provider", "base_url", "model", "api_key_env", "api_key")
"""Settings that only make sense together."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def selected(file: Mapping[str, Any], command_line: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Select the provider from file, environment and flags; see :func:`select_provider`."""
    environment = {key: environ.get(f"UNBROKEN_{key.upper()}") for key in SELECTION if key != "api_key"}
    return select_provider((file, environment, command_line), environ)


def select_provider(sources: Sequence[Mapping[str, Any]], environ: Mapping[str, str]) -> dict[str, Any]:
    """Select the provider: return one value, or ``None``, for each of :data:`SELECTION`.

    A later source takes precedence. If it names another provider or URL, settings of earlier sources for a different
    provider are ignored: their key must not be sent there, and their model is not served there.

    Args:
        sources: the settings of each source, in order of precedence; empty strings count as missing.
        environ: the environment, for the provider's own variables.

    Raises:
        UsageError: ``api_key_env`` is not the name of a variable, or no provider or URL is given for it.
    """
    who: dict[str, Any] = {}
    for source in sources:
        given = {key: source[key] for key in SELECTION if source.get(key)}
        if _names_another(given, who) and _names_provider(who):
            who = {}
        if "api_key_env" in given:
            who.pop("api_key", None)
        who |= given
    _check_key_env(who)
    if "api_key" in who and not _stored_key_counts(who, environ):
        del who["api_key"]
    return {key: who.get(key) for key in SELECTION}


def _names_another(given: Mapping[str, Any], who: Mapping[str, Any]) -> bool:
    return any(given.get(key) and given[key] != who.get(key) for key in ("provider", "base_url"))


def _names_provider(who: Mapping[str, Any]) -> bool:
    return bool(who.get("provider") or who.get("base_url"))


def _check_key_env(who: Mapping[str, Any]) -> None:
    name = who.get("api_key_env")
    if not name:
        return
    if not _NAME.fullmatch(name):  # it may be the key itself, so it is not shown
        raise UsageError("--api-key-env takes the name of an environment variable, not a key")
    if not _names_provider(who):
        raise UsageError(f"whose key is in {name}? Name a provider or a base URL")


def _stored_key_counts(who: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Return whether the file's key is used: a key or another URL of the environment takes precedence."""
    preset = PROVIDERS.get((who.get("provider") or "").lower())
    key_env = who.get("api_key_env") or (preset.key_env if preset else "")
    redirected = preset and preset.base_url_env and environ.get(preset.base_url_env) and not who.get("base_url")
    return not redirected and not environ.get(key_env, "").strip()
