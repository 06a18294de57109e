"""Recognition of a request to generate content, and of tools with side effects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from unbroken.core.dialect import Generation
from unbroken.core.http import Request
from unbroken.core.payload import RequestBody, count, dicts, mapping

_PATH = re.compile(r"/(?:models|tunedModels|endpoints)/.+(?::|%3[Aa])(generateContent|streamGenerateContent)/*\Z")


def serves(path: str) -> bool:
    """Return whether content is generated at a path."""
    return _PATH.search(path) is not None


def read_request(request: Request, body: RequestBody) -> Generation | None:
    """Read a POST to ``.../models/NAME:generateContent``, or to ``:streamGenerateContent`` with ``alt=sse``.

    Without ``alt=sse`` the stream is one long JSON array; that form is not recognised and passes through.
    """
    found = _PATH.search(request.path)
    streaming = found is not None and found[1] == "streamGenerateContent"
    if streaming and not _asks_for_events(request.parts.query):
        return None
    config = mapping(_either(body, "generationConfig", "generation_config"))
    choices = count(_either(config, "candidateCount", "candidate_count")) or 1
    return Generation(streaming, choices, _acts(body))


def _either(answer: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these fields that is set: Protocol Buffers' JSON accepts two spellings of a name."""
    return next((answer[name] for name in names if answer.get(name) is not None), None)


def _asks_for_events(query: str) -> bool:
    return any(name in ("alt", "$alt") and value == "sse" for name, value in parse_qsl(query))


def _acts(body: RequestBody) -> bool:
    """Return whether the server runs code or calls MCP servers. Search and maps only read; computer use is local."""
    acting = (("codeExecution", "code_execution"), ("mcpServers", "mcp_servers"))
    return any(_either(tool, *names) is not None for tool in dicts(body.get("tools")) for names in acting)
