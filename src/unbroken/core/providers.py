"""Presets of providers: base URLs, and the environment variables that their users already set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec

from unbroken.core.continuation.format import Style
from unbroken.core.http import check_url
from unbroken.core.policy import LOCAL_REPLAYS
from unbroken.errors import UsageError


class Provider(msgspec.Struct, frozen=True):
    """A server that speaks a known dialect.

    Attributes:
        name: the name by which users select it.
        base_url: URL to which the dialect's path is appended.
        key_env: the environment variable that holds the key, ``""`` if no key is needed.
        base_url_env: the variable by which its users redirect it, ``""`` if there is none.
        model: the default model, ``""`` if the caller must name one.
        counts: whether it sends token counts only on request (``stream_options``) and accepts the request.
        dialect: the name of its dialect.
        replays: :attr:`unbroken.Policy.replays` where the caller sets none; ``None`` for the usual number.
        continuation: the style in which it continues an answer, ``None`` if it does not, or nobody knows.
        echoes: whether it repeats the text that it continues.
    """

    name: str
    base_url: str
    key_env: str = ""
    base_url_env: str = ""
    model: str = ""
    counts: bool = True
    dialect: str = "openai-chat"
    replays: int | None = None
    continuation: Style | None = None
    echoes: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it needs no key, as servers on the user's own machine."""
        return not self.key_env


_ALL = (
    Provider(
        "deepseek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        "DEEPSEEK_BASE_URL",
        "deepseek-chat",
        continuation="prefix",
    ),
    Provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL", "gpt-5-mini"),
    Provider(
        "anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "claude-sonnet-4-5",
        dialect="anthropic-messages",
        continuation="assistant",
    ),
    Provider(
        "google",
        "https://generativelanguage.googleapis.com",
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "gemini-flash-latest",
        dialect="gemini",
    ),
    Provider(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        model="openrouter/auto",
        continuation="assistant",
    ),
    Provider(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        model="llama-3.3-70b-versatile",
        continuation="assistant",
    ),
    Provider(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        model="mistral-small-latest",
        counts=False,
        continuation="prefix",
        echoes=True,
    ),
    Provider("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    Provider("xai", "https://api.x.ai/v1", "XAI_API_KEY", model="grok-4"),
    Provider("ollama", "http://127.0.0.1:11434/v1", replays=LOCAL_REPLAYS),
    Provider("llama.cpp", "http://127.0.0.1:8080/v1", model="default", replays=LOCAL_REPLAYS, continuation="assistant"),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType({provider.name: provider for provider in _ALL})
"""The presets by name."""


def continuation_at(url: str) -> Style | None:
    """Return the style in which the server of a URL continues an answer, ``None`` if it is no provider's, or unknown.

    A provider on the user's own machine is not known by its address.
    """
    found = _serving(url)
    return found.continuation if found else None


def echoes_at(url: str) -> bool:
    """Return whether the server of a URL is known to repeat the text that it continues."""
    found = _serving(url)
    return found is not None and found.echoes


def _serving(url: str) -> Provider | None:
    return _by_host().get(urlsplit(url).hostname)


@cache
def _by_host() -> Mapping[str | None, Provider]:
    return {urlsplit(one.base_url).hostname: one for one in reversed(_ALL) if not one.is_local}


def find_provider(name: str) -> Provider:
    """Return the preset of this name.

    Raises:
        UsageError: no preset has this name; the message lists the presets.
    """
    try:
        return PROVIDERS[name.lower()]
    except KeyError:
        known = ", ".join(PROVIDERS)
        raise UsageError(f"unknown provider {name!r}; known are {known}; or give a base URL of your own") from None


def choose_provider(name: str | None, base_url: str | None, environ: Mapping[str, str]) -> Provider:
    """Return the provider that ``name`` or ``base_url`` selects, or else the first whose key is set.

    Args:
        name: a preset's name, or ``None``.
        base_url: a URL that replaces the preset's, or is used without a preset; ``None`` for the preset's.
        environ: the environment, such as ``os.environ``.

    Raises:
        UsageError: nothing selects a provider, or the URL is invalid or carries credentials.
    """
    if name:
        provider = find_provider(name)
    elif base_url:
        provider = Provider("custom", base_url, model="default")
    else:
        provider = _by_key(environ)
    if base_url:
        check_base_url(base_url)
    elif base_url := environ.get(provider.base_url_env, ""):
        check_base_url(base_url, provider.base_url_env)
    path, mark, query = (base_url or provider.base_url).partition("?")
    return msgspec.structs.replace(provider, base_url=path.rstrip("/") + mark + query)


def check_base_url(url: str, source: str = "") -> None:
    """Refuse a URL to which no path can be appended. It may have a query.

    Args:
        url: the base URL.
        source: where it comes from, such as the name of a variable, for the message.

    Raises:
        UsageError: it cannot be requested, or it carries credentials or a fragment. The message quotes neither.
    """
    try:
        check_url(url)
        if "@" in urlsplit(url).netloc:
            raise UsageError("a base URL cannot carry credentials: give the key, or a header")
        if "#" in url:
            raise UsageError("a base URL cannot have a fragment: leave out the # and what follows it")
    except UsageError as exc:
        if source:
            raise UsageError(f"{source}: {exc}") from None
        raise


def _by_key(environ: Mapping[str, str]) -> Provider:
    for provider in _ALL:
        if provider.key_env and environ.get(provider.key_env):
            return provider
    keys = ", ".join(provider.key_env for provider in _ALL if provider.key_env)
    raise UsageError(f"no provider: name one, or a base URL, or set one of {keys}")


def find_key(provider: Provider, key_env: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the provider's key, from the variable that its users already set; ``None`` if it needs none.

    A provider's key is sent to another host only if the user redirected the provider itself.

    Args:
        provider: from :func:`choose_provider`.
        key_env: another variable to look in, ``None`` for the provider's own.
        environ: the environment.

    Raises:
        UsageError: the key is missing, and the provider needs one.
    """
    name = key_env or provider.key_env
    if not name:
        return None
    if key := environ.get(name, "").strip():
        return key
    redirected = provider.name in PROVIDERS and provider.base_url != PROVIDERS[provider.name].base_url
    if redirected and not key_env:
        return None
    raise UsageError(f"no API key for {provider.name}: set the environment variable {name}")
