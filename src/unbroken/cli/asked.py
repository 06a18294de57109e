"""Who is asked, and with which key: the settings of the file, the environment and the flags, put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unbroken.core.providers import PROVIDERS
from unbroken.errors import UsageError

WHO = ("provider", "base_url", "model", "api_key_env", "api_key")
"""Settings that only make sense together."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def who_is_asked(sources: Sequence[Mapping[str, Any]], environ: Mapping[str, str]) -> dict[str, Any]:
    """One value, or ``None``, for each of :data:`WHO`.

    A nearer source wins. Where it names another provider or URL, what a farther one says of somebody else does not
    count: its key must not go there, and its model is not served there.

    Args:
        sources: what each source says, the farthest first; empty strings say nothing.
        environ: the environment, for the variables of the provider's own.

    Raises:
        UsageError: ``api_key_env`` is no name of a variable, or it is nobody's.
    """
    who: dict[str, Any] = {}
    for source in sources:
        given = {key: source[key] for key in WHO if source.get(key)}
        if _names_another(given, who) and _names_somebody(who):
            who = {}
        if "api_key_env" in given:
            who.pop("api_key", None)
        who |= given
    _check_key_env(who)
    if "api_key" in who and not _stored_key_counts(who, environ):
        del who["api_key"]
    return {key: who.get(key) for key in WHO}


def _names_another(given: Mapping[str, Any], who: Mapping[str, Any]) -> bool:
    return any(given.get(key) and given[key] != who.get(key) for key in ("provider", "base_url"))


def _names_somebody(who: Mapping[str, Any]) -> bool:
    return bool(who.get("provider") or who.get("base_url"))


def _check_key_env(who: Mapping[str, Any]) -> None:
    name = who.get("api_key_env")
    if not name:
        return
    if not _NAME.fullmatch(name):  # which may well be the key itself, so it is not shown
        raise UsageError("--api-key-env takes the name of an environment variable, not a key")
    if not _names_somebody(who):
        raise UsageError(f"whose key is in {name}? Name a provider or a base URL")


def _stored_key_counts(who: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether the file's key counts: the environment is nearer, both with a key and with another URL."""
    preset = PROVIDERS.get((who.get("provider") or "").lower())
    key_env = who.get("api_key_env") or (preset.key_env if preset else "")
    redirected = preset and preset.base_url_env and environ.get(preset.base_url_env) and not who.get("base_url")
    return not redirected and not environ.get(key_env, "").strip()
