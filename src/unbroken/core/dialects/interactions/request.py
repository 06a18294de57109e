"""Recognition of a request for an interaction, and of what acts on the world."""

from __future__ import annotations

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, asks_for_stream, mapping, text

HARMLESS_TOOLS = frozenset(
    {"function", "computer_use"}  # run by the caller, who decides
    | {"google_search", "google_maps", "url_context", "file_search", "retrieval", "tool_search"}
)
"""Tools that change nothing when they run twice. Any other may: code, MCP, and unknown tools."""

_ACTING = ("background", "agent", "agent_config", "environment", "webhook_config")
"""Fields of a request that leave something behind: a run, an agent's work, a sandbox, a call of a webhook."""


def serves(path: str) -> bool:
    """Return whether interactions are made at a path (Vertex AI's, below a project, included)."""
    return path.rstrip("/").endswith("/interactions")


def read_request(request: Request, body: RequestBody) -> Generation | None:  # noqa: ARG001 - the body is enough
    """Read a JSON object that names a model or an agent; ``None`` without either.

    A stored interaction that nobody asks for again is no harm, so ``store`` and ``previous_interaction_id`` replay.
    """
    if body.keys().isdisjoint({"model", "agent"}):
        return None
    resumable = body.get("background") is True and body.get("store") is not False
    return Generation(streaming=asks_for_stream(body), acts=_acts(body), resumable=resumable)


def _acts(body: RequestBody) -> bool:
    if any(body.get(name) for name in _ACTING):
        return True
    tools = body.get("tools")
    return bool(tools) and not (isinstance(tools, list) and all(map(_is_harmless, tools)))


def _is_harmless(tool: object) -> bool:
    return text(mapping(tool).get("type")) in HARMLESS_TOOLS
