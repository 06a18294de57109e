"""What a request for a message is, and whether its tools act."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import dicts, filled, text

_PATH = re.compile(
    r"/messages/*\Z|/publishers/anthropic/models/(?!count-tokens:)[^/:]+:(?:rawPredict|streamRawPredict)\Z"
)

_ACTING_TOOLS = ("code_execution_", "mcp_toolset")
"""Beginnings of the types of server tools that act. Computer, browser, bash and memory tools run at the client."""

_UNVERSIONED = ("messages", "models")
"""What some clients ask for below their base URL (Vercel's AI SDK), and others below its ``/v1``."""


def serves(path: str) -> bool:
    """Whether messages are made at a path (Vertex AI's paths for Claude included)."""
    return _PATH.search(path) is not None


def complete_path(path: str) -> str:
    """A path below the base URL with the version that some clients leave out."""
    return f"v1/{path}" if path.partition("/")[0] in _UNVERSIONED else path


def read_request(request: Request, body: Mapping[str, Any]) -> Generation | None:  # noqa: ARG001 - the body says it all
    """A JSON object with a list of messages.

    Other services have a path that ends so (OpenAI's threads, chat rooms); they do not send a list of messages.
    """
    if not isinstance(body.get("messages"), list):
        return None
    return Generation(streaming=body.get("stream") is True, acts=_acts(body))


def _acts(body: Mapping[str, Any]) -> bool:
    """Whether the server acts on the world for this call, or keeps something of it (a container, a thread)."""
    if any(filled(body.get(name)) for name in ("mcp_servers", "container", "thread")):
        return True
    return any(text(tool.get("type")).startswith(_ACTING_TOOLS) for tool in dicts(body.get("tools")))
