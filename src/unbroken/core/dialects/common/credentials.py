"""Keys as OpenAI's clients, and most others, send them."""

from __future__ import annotations

HEADERS = frozenset({"authorization", "api-key"})
"""OpenAI's header, and Azure's."""

REQUEST_HEADERS = frozenset({"openai-organization", "openai-project", "openai-beta"})
"""OpenAI's headers that say for whom, and with which parts of the API that are not settled."""


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {key}"}
