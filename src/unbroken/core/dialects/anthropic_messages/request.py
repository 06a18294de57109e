"""Recognition of a request for a message, and of tools with side effects."""

from __future__ import annotations

import re

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, asks_for_stream, dicts, filled, text

_PATH = re.compile(
    r"/messages/*\Z|/publishers/anthropic/models/(?!count-tokens:)[^/:]+:(?:rawPredict|streamRawPredict)\Z"
)

_ACTING_TOOLS = ("code_execution_", "mcp_toolset")
"""Prefixes of types of server tools with side effects. Computer, browser, bash and memory tools run at the client."""

_UNVERSIONED = ("messages", "models")
"""Paths that some clients request below their base URL (Vercel's AI SDK), and others below its ``/v1``."""


def serves(path: str) -> bool:
    """Return whether messages are made at a path (Vertex AI's paths for Claude included)."""
    return _PATH.search(path) is not None


def complete_path(path: str) -> str:
    """Add the version that some clients omit to a path below the base URL."""
    return f"v1/{path}" if path.partition("/")[0] in _UNVERSIONED else path


def read_request(request: Request, body: RequestBody) -> Generation | None:  # noqa: ARG001 - the body is enough
    """Read a JSON object with a list of messages; ``None`` without a list.

    Other services have a path with this ending (OpenAI's threads, chat rooms); they do not send a list of messages.
    """
    if not body.is_list("messages"):
        return None
    return Generation(streaming=asks_for_stream(body), acts=_acts(body))


def _acts(body: RequestBody) -> bool:
    """Return whether the call has side effects on the server, or leaves state there (a container, a thread)."""
    if any(filled(body.get(name)) for name in ("mcp_servers", "container", "thread")):
        return True
    return any(text(tool.get("type")).startswith(_ACTING_TOOLS) for tool in dicts(body.get("tools")))
