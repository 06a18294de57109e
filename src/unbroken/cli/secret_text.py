"""Text of other programs without the keys in it, for reports that people hand on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from unbroken.core.patterns import LazyPattern

HIDDEN_KEY = "[hidden]"

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
"""Variables of an environment whose values are not shown."""

_SHORTEST = 8
"""Characters of the shortest value that is hidden wherever it stands: shorter ones are words."""

_SHAPES = LazyPattern(
    r"(?P<name>\b(?:x-api-key|x-goog-api-key|api[-_]?key|authorization|password|secret|token)\"?\s*[:=]\s*\"?"
    r"(?:(?:bearer|basic)\s+)?)[^\s\"',]+"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)(?=\S*\d)\S{8,}"
    r"|(?P<url>://)[^/\s@]+(?=@)"
    r"|\b(?:sk|pk|rk|gsk|xai|ghp|gho|xox[abp])[-_][\w-]{8,}|\bAIza[\w-]{20,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)
"""What looks like a credential: behind its name, in a URL, or by its first characters."""


class SecretText:
    """Hides keys in text: the values of this environment's secrets, and what looks like a credential.

    Args:
        environ: the environment of the program.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        values = {value.strip() for name, value in environ.items() if _NAMES.search(name)}
        self._values = sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return the text without the keys in it."""
        for value in self._values:
            text = text.replace(value, HIDDEN_KEY)
        return _SHAPES.sub(lambda found: (found.group(found.lastgroup) if found.lastgroup else "") + HIDDEN_KEY, text)
