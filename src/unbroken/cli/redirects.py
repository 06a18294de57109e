"""The variables by which programs are told where to ask, and how ``unbroken exec`` bends them to its relay."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.relay.settings import UpstreamSettings

VARIABLES: Mapping[str, tuple[str, str | None]] = {
    "OPENAI_BASE_URL": ("openai", "/v1"),
    "OPENAI_API_BASE": ("openai", "/v1"),  # litellm, LangChain
    "ANTHROPIC_BASE_URL": ("anthropic", ""),
    "ANTHROPIC_API_BASE": ("anthropic", ""),  # litellm
    "GOOGLE_GEMINI_BASE_URL": ("google", ""),
    "GEMINI_API_BASE": ("google", "/v1beta"),  # litellm
    "DEEPSEEK_BASE_URL": ("deepseek", ""),
    "DEEPSEEK_API_BASE": ("deepseek", "/beta"),  # litellm, which goes there by itself; LangChain
    "OPENROUTER_BASE_URL": ("openrouter", "/v1"),
    "OPENROUTER_API_BASE": ("openrouter", "/v1"),  # litellm
    "GROQ_BASE_URL": ("groq", ""),
    "MISTRAL_BASE_URL": ("mistral", "/v1"),  # LangChain
    "TOGETHER_BASE_URL": ("together", "/v1"),
    "TOGETHER_AI_API_BASE": ("together", "/v1"),  # litellm
    "XAI_API_BASE": ("xai", "/v1"),  # litellm
    "AZURE_OPENAI_ENDPOINT": ("azure", None),
    "AZURE_API_BASE": ("azure", None),  # litellm
}
"""Which upstream each of them leads to, and what follows that upstream's path where it is the preset; ``None`` for what
is only redirected where the user has set it. Left out is what programs do not agree on (``GROQ_API_BASE``), and what
leads to dialects that the relay does not know (``OLLAMA_HOST``)."""

ORIGIN_VARIABLE = "UNBROKEN_RELAY_URL"
"""Tells the program, and whoever starts it with options of its own, where the relay is."""

_APPEND_THE_VERSION = ("anthropic", "google", "groq")
"""Upstreams whose programs append ``/v1`` or its like themselves, whatever the variable says."""

_HERE = "127.0.0.1,localhost"


@dataclasses.dataclass(frozen=True, slots=True)
class Lead:
    """Where one variable leads.

    Attributes:
        variable: its name.
        upstream: the upstream's name.
        url: what the user had set it to, ``""`` where that does not count.
    """

    variable: str
    upstream: str
    url: str = ""


def find_leads(environ: Mapping[str, str], named: Collection[str]) -> list[Lead]:
    """Where every variable leads.

    What the user has set counts. Two variables of one provider that say different things lead to different upstreams;
    those that are not set follow the first one that is.

    Args:
        environ: the environment.
        named: upstreams that the command line names, which is nearer: what variables say of them does not count.
    """
    leads: list[Lead] = []
    urls: dict[str, str] = {}
    for variable, (upstream, path) in VARIABLES.items():
        url = "" if upstream in named else environ.get(variable, "").strip()
        if url and _root(urls.setdefault(upstream, url)) != _root(url):
            upstream = variable.lower()
            urls[upstream] = url
        if url or path is not None:
            leads.append(Lead(variable, upstream, url))
    return leads


def as_tables(leads: Sequence[Lead]) -> dict[str, dict[str, Any]]:
    """The upstreams that the user's variables name, as the configuration file would have them.

    Raises:
        UsageError: a variable is set to something that is no base URL.
    """
    from unbroken.core.providers import PROVIDERS
    from unbroken.relay.settings import UpstreamSettings

    tables: dict[str, dict[str, Any]] = {}
    for lead in leads:
        if not lead.url:
            continue
        preset = PROVIDERS.get(VARIABLES[lead.variable][0])
        dialect = preset.dialect if preset else "openai-chat"
        try:
            UpstreamSettings(lead.upstream, lead.url, dialect)
        except UsageError as exc:
            raise UsageError(f"{lead.variable}: {exc}") from None
        tables.setdefault(lead.upstream, {"base_url": lead.url, "dialect": dialect})
    return tables


def child_environment(
    environ: Mapping[str, str], origin: str, leads: Sequence[Lead], upstreams: Mapping[str, UpstreamSettings]
) -> dict[str, str]:
    """The environment of the program: base URLs lead to the relay, and no proxy stands before it.

    Args:
        environ: our own.
        origin: URL of the relay.
        leads: from :func:`find_leads`.
        upstreams: the relay's.
    """
    child = {**environ, ORIGIN_VARIABLE: origin}
    for lead in leads:
        child[lead.variable] = f"{origin}/{lead.upstream}{_path(lead, upstreams[lead.upstream])}"
    # Programs read one spelling or the other; what only one of them says must not be lost behind the other.
    for variable, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        child[variable] = _with_us(environ.get(variable) or environ.get(other) or "")
    return child


def _path(lead: Lead, upstream: UpstreamSettings) -> str:
    """What follows the upstream's path: as the user had it, or as programs expect it of the provider."""
    from unbroken.core.providers import PROVIDERS

    expected = VARIABLES[lead.variable][1] or ""
    preset = PROVIDERS.get(upstream.name)
    is_preset = preset is not None and upstream.base_url == preset.base_url
    if not lead.url and (is_preset or lead.upstream in _APPEND_THE_VERSION):
        return expected
    url = lead.url or upstream.base_url
    return url.rstrip("/").removeprefix(_root(url))


def _root(url: str) -> str:
    """The URL without its version, as :attr:`unbroken.relay.settings.UpstreamSettings.root` has it."""
    return re.sub(r"(?<!/)/v1\Z", "", url.rstrip("/"))


def _with_us(exceptions: str) -> str:
    if exceptions.strip() == "*":  # which means everything only where it stands alone
        return exceptions
    return f"{exceptions},{_HERE}" if exceptions else _HERE
