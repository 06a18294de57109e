"""The environment variables with base URLs, and how ``unbroken exec`` points them at its relay."""

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
    "DEEPSEEK_API_BASE": ("deepseek", "/beta"),  # litellm, which uses this path by default; LangChain
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
"""The upstream of each variable, and the path after that upstream's path if it is the preset; ``None`` for a variable
that is redirected only if the user has set it. Left out are variables that programs interpret differently
(``GROQ_API_BASE``), and those of dialects that the relay does not know (``OLLAMA_HOST``)."""

ORIGIN_VARIABLE = "UNBROKEN_RELAY_URL"
"""The relay's URL, for the program, and for options on its command line."""

_APPEND_THE_VERSION = ("anthropic", "google", "groq")
"""Upstreams whose programs append ``/v1`` or its like themselves, to any value of the variable."""

_HERE = "127.0.0.1,localhost"


@dataclasses.dataclass(frozen=True, slots=True)
class BaseUrlVariable:
    """The target of one variable.

    Attributes:
        variable: its name.
        upstream: the upstream's name.
        url: the user's value, ``""`` if it is not set or ignored.
    """

    variable: str
    upstream: str
    url: str = ""


def find_variables(environ: Mapping[str, str], named: Collection[str]) -> list[BaseUrlVariable]:
    """Return the target of every variable.

    The user's values are kept: two variables of one provider with different values go to different upstreams; those
    that are not set follow the first one that is.

    Args:
        environ: the environment.
        named: upstreams that the command line names, which takes precedence: values of their variables are ignored.
    """
    variables: list[BaseUrlVariable] = []
    urls: dict[str, str] = {}
    for variable, (upstream, path) in VARIABLES.items():
        url = "" if upstream in named else environ.get(variable, "").strip()
        if url and _root(urls.setdefault(upstream, url)) != _root(url):
            upstream = variable.lower()
            urls[upstream] = url
        if url or path is not None:
            variables.append(BaseUrlVariable(variable, upstream, url))
    return variables


def as_tables(variables: Sequence[BaseUrlVariable]) -> dict[str, dict[str, Any]]:
    """Return the upstreams that the user's variables name, in the form of the configuration file.

    Raises:
        UsageError: the value of a variable is not a base URL.
    """
    from unbroken.core.dialects import DEFAULT
    from unbroken.core.providers import PROVIDERS
    from unbroken.relay.settings import UpstreamSettings

    tables: dict[str, dict[str, Any]] = {}
    for one in variables:
        if not one.url:
            continue
        preset = PROVIDERS.get(VARIABLES[one.variable][0])
        dialect = preset.dialect if preset else DEFAULT.name
        try:
            UpstreamSettings(one.upstream, one.url, dialect)
        except UsageError as exc:
            raise UsageError(f"{one.variable}: {exc}") from None
        tables.setdefault(one.upstream, {"base_url": one.url, "dialect": dialect})
    return tables


def child_environment(
    environ: Mapping[str, str],
    origin: str,
    variables: Sequence[BaseUrlVariable],
    upstreams: Mapping[str, UpstreamSettings],
) -> dict[str, str]:
    """Return the environment of the program: base URLs lead to the relay, without a proxy.

    Args:
        environ: the environment of this process.
        origin: URL of the relay.
        variables: from :func:`find_variables`.
        upstreams: the relay's upstreams.
    """
    child = _without_proxy(environ, origin)
    for one in variables:
        child[one.variable] = f"{origin}/{one.upstream}{_path(one, upstreams[one.upstream])}"
    return child


def lab_environment(environ: Mapping[str, str], origin: str) -> dict[str, str]:
    """Return the environment of a program whose base URLs all lead to one server, whatever they said, without a proxy.

    Args:
        environ: the environment of this process.
        origin: URL of the server, which answers below any path.
    """
    child = _without_proxy(environ, origin)
    for variable, (upstream, path) in VARIABLES.items():
        if path is not None or environ.get(variable):
            child[variable] = f"{origin}/{upstream}{path or ''}"
    return child


def _without_proxy(environ: Mapping[str, str], origin: str) -> dict[str, str]:
    """Return the environment with the URL of a server on this machine, which is reached directly."""
    child = {**environ, ORIGIN_VARIABLE: origin}
    # Programs read one spelling or the other: if only one is set, both get its value.
    for variable, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        child[variable] = _with_us(environ.get(variable) or environ.get(other) or "")
    return child


def _path(one: BaseUrlVariable, upstream: UpstreamSettings) -> str:
    """Return the path after the upstream's: the user's, or the one that programs expect of the provider."""
    from unbroken.core.providers import PROVIDERS

    expected = VARIABLES[one.variable][1] or ""
    preset = PROVIDERS.get(upstream.name)
    is_preset = preset is not None and upstream.base_url == preset.base_url
    if not one.url and (is_preset or one.upstream in _APPEND_THE_VERSION):
        return expected
    url = one.url or upstream.base_url
    return url.rstrip("/").removeprefix(_root(url))


def _root(url: str) -> str:
    """Return the URL without its version, as :attr:`unbroken.relay.settings.UpstreamSettings.root` does."""
    return re.sub(r"(?<!/)/v1\Z", "", url.rstrip("/"))


def _with_us(exceptions: str) -> str:
    if exceptions.strip() == "*":  # it means every host only if it is the whole value
        return exceptions
    return f"{exceptions},{_HERE}" if exceptions else _HERE
