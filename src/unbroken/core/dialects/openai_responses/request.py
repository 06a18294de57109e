"""Recognition of a request for a response, and of tools with side effects."""

from __future__ import annotations

import re

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, asks_for_stream, mapping, text

HARMLESS_TOOLS = frozenset(
    {"function", "custom", "local_shell", "apply_patch"}  # run by the caller, who decides
    | {"web_search", "web_search_preview", "file_search", "tool_search", "image_generation"}
    | {"x_search", "collections_search", "browser_search"}  # xAI, Groq
)
"""Tools that change nothing when they run twice. Any other may: MCP, code, computers, and unknown tools."""


def serves(path: str) -> bool:
    """Return whether responses are made at a path (Azure's and Codex's paths included)."""
    return path.rstrip("/").endswith("/responses")


def read_request(request: Request, body: RequestBody) -> Generation | None:  # noqa: ARG001 - the body is enough
    """Read a JSON object with a model, an input or a prompt; ``None`` without any."""
    if body.keys().isdisjoint({"model", "input", "prompt"}):
        return None
    return Generation(streaming=asks_for_stream(body), acts=_acts(body), resumable=body.get("background") is True)


def _acts(body: RequestBody) -> bool:
    """Return whether the call may have side effects or leaves state; a stored prompt may add tools not seen here."""
    if any(body.get(name) for name in ("background", "conversation", "prompt", "agent", "agent_reference")):
        return True
    brought = [item.get("tools") for item in body.objects("input") if item.get("type") == "additional_tools"]
    return not all(map(_are_harmless, [body.get("tools"), *brought]))


def _are_harmless(tools: object) -> bool:
    return not tools or (isinstance(tools, list) and all(map(_is_harmless, tools)))


def _is_harmless(tool: object) -> bool:
    """Return whether a tool is harmless: a shell only if the caller runs it.

    A date in a name (``web_search_2025_08_26``) is a version.
    """
    fields = mapping(tool)
    kind = re.sub(r"_\d{4}_\d{2}_\d{2}$", "", text(fields.get("type")))
    if kind == "shell":
        return mapping(fields.get("environment")).get("type") == "local"
    return kind in HARMLESS_TOOLS or (kind == "namespace" and _are_harmless(fields.get("tools")))
