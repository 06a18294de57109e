"""Routing: the upstream of a path, and the URL there."""

from __future__ import annotations

import dataclasses
import re

from unbroken.core.dialects import find_dialect, versions
from unbroken.relay.settings import Settings, UpstreamSettings

OWN = "/_unbroken"
"""Prefix of the relay's own paths."""

_SLASH = r"(?:/|\\|%(?:25)*2f|%(?:25)*5c)"
"""What servers read as a slash, some of them also encoded, or encoded twice."""

_AMBIGUOUS = re.compile(
    rf"(?:^|{_SLASH})"
    r"(?:\.|%(?:25)*2e){1,2}"
    r"(?:(?:;|%(?:25)*(?:3b|09|0a|0d|20|23|3f))(?:(?!/|\\|%(?:25)*2f|%(?:25)*5c).)*)?"  # what servers cut off
    rf"(?:{_SLASH}|$)"
    r"|%(?:25)*00",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """The target of a request.

    Attributes:
        upstream: the server.
        url: the URL there.
    """

    upstream: UpstreamSettings
    url: str


def is_own(path: str) -> bool:
    """Return whether a path is the relay's own."""
    return path == OWN or path.startswith(f"{OWN}/")


def is_ambiguous(path: str) -> bool:
    """Return whether a path has ``.`` or ``..`` segments: it could lead out of the base URL that was configured."""
    return _AMBIGUOUS.search(path) is not None


def find_route(settings: Settings, path: str, query: str) -> Route | None:
    """Return the target of a request: ``/NAME/...`` goes to that upstream, ``/v1/...`` to the default one.

    Args:
        settings: the relay's settings.
        path: percent-encoded path of the request, with its leading slash.
        query: its query without ``?``, or ``""``.
    """
    name, _, rest = path[1:].partition("/")
    upstream = settings.upstreams.get(name)
    if upstream is None:
        upstream = settings.upstreams.get(settings.default)
        if upstream is None or name not in versions():
            return None
        rest = path[1:]
    rest = find_dialect(upstream.dialect).complete_path(rest)
    return Route(upstream, f"{upstream.url_of(rest)}{f'?{query}' if query else ''}")
