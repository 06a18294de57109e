"""Where the providers are, and which environment variables their users already set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from unbroken.core.http import check_url
from unbroken.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """One place that speaks a known dialect.

    Attributes:
        name: what users call it.
        base_url: URL to which the dialect's path is appended.
        key_env: the environment variable that holds the key, ``""`` where none is needed.
        base_url_env: the variable by which its users redirect it, ``""`` where there is none.
        model: the model that is asked where none is named, ``""`` where one must be named.
        counts: whether it must be asked for token counts (``stream_options``) and takes that well.
        dialect: the name of the dialect that is spoken there.
    """

    name: str
    base_url: str
    key_env: str = ""
    base_url_env: str = ""
    model: str = ""
    counts: bool = True
    dialect: str = "openai-chat"

    @property
    def is_local(self) -> bool:
        """Whether it runs on the user's own machine and needs no key."""
        return not self.key_env


_ALL = (
    Provider("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL", "deepseek-chat"),
    Provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL", "gpt-5-mini"),
    Provider(
        "anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "claude-sonnet-4-5",
        dialect="anthropic-messages",
    ),
    Provider(
        "google",
        "https://generativelanguage.googleapis.com",
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "gemini-flash-latest",
        dialect="gemini",
    ),
    Provider("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", model="openrouter/auto"),
    Provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", model="llama-3.3-70b-versatile"),
    Provider("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", model="mistral-small-latest", counts=False),
    Provider("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    Provider("xai", "https://api.x.ai/v1", "XAI_API_KEY", model="grok-4"),
    Provider("ollama", "http://127.0.0.1:11434/v1"),
    Provider("llama.cpp", "http://127.0.0.1:8080/v1", model="default"),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType({provider.name: provider for provider in _ALL})
"""The presets by name."""


def find_provider(name: str) -> Provider:
    """The preset of this name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    try:
        return PROVIDERS[name.lower()]
    except KeyError:
        known = ", ".join(PROVIDERS)
        raise UsageError(f"unknown provider {name!r}; known are {known}; or give a base URL of your own") from None


def choose_provider(name: str | None, base_url: str | None, environ: Mapping[str, str]) -> Provider:
    """The provider that is meant: the one that is named, a base URL of its own, or the first whose key is set.

    Args:
        name: a preset's name, or ``None``.
        base_url: a URL that replaces the preset's, or stands alone; ``None`` for the preset's.
        environ: the environment, such as ``os.environ``.

    Raises:
        UsageError: none can be told, or the URL is none.
    """
    if name:
        provider = find_provider(name)
    elif base_url:
        provider = Provider("custom", base_url, model="default")
    else:
        provider = _by_key(environ)
    url = base_url or environ.get(provider.base_url_env, "") or provider.base_url
    check_url(url)
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError("a base URL cannot carry credentials: give the key, or a header")
    return dataclasses.replace(provider, base_url=url.rstrip("/"))


def _by_key(environ: Mapping[str, str]) -> Provider:
    for provider in _ALL:
        if provider.key_env and environ.get(provider.key_env):
            return provider
    keys = ", ".join(provider.key_env for provider in _ALL if provider.key_env)
    raise UsageError(f"no provider: name one, or a base URL, or set one of {keys}")


def find_key(provider: Provider, key_env: str | None, environ: Mapping[str, str]) -> str | None:
    """The provider's key, from the variable that its users already set.

    A provider's key goes to another host only where its user has redirected the provider itself.

    Args:
        provider: from :func:`choose_provider`.
        key_env: another variable to look in, ``None`` for the provider's own.
        environ: the environment.

    Raises:
        UsageError: there is none, and the provider needs one.
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
