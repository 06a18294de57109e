"""Unbroken keeps streaming LLM turns alive.

The public names are resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbroken.client import Answer, AsyncClient, AsyncTurnStream, Client, TurnStream
    from unbroken.core.actions import RetryEvent
    from unbroken.core.events import (
        Failed,
        Finish,
        Reasoning,
        Refusal,
        Signature,
        Text,
        ToolCall,
        ToolCallArguments,
        ToolCallStart,
        TypedEvent,
        Usage,
        UsageReport,
    )
    from unbroken.core.policy import Policy
    from unbroken.core.report import AttemptReport, Report
    from unbroken.errors import (
        CallerTimeout,
        FirstOutputTimeout,
        MalformedStream,
        ProviderError,
        StreamCut,
        TurnError,
        UnbrokenError,
        UnexpectedResponse,
        Unreachable,
        UsageError,
    )
    from unbroken.transports.httpx2 import AsyncTransport, Transport
    from unbroken.transports.wrapping import wrap

__version__ = "0.1.0"

_HOMES = {
    "RetryEvent": "core.actions",
    "Answer": "client",
    "AsyncClient": "client",
    "AsyncTransport": "transports.httpx2",
    "CallerTimeout": "errors",
    "AsyncTurnStream": "client",
    "AttemptReport": "core.report",
    "Client": "client",
    "Failed": "core.events",
    "Finish": "core.events",
    "FirstOutputTimeout": "errors",
    "MalformedStream": "errors",
    "Policy": "core.policy",
    "ProviderError": "errors",
    "Reasoning": "core.events",
    "Refusal": "core.events",
    "Report": "core.report",
    "Signature": "core.events",
    "StreamCut": "errors",
    "Text": "core.events",
    "ToolCall": "core.events",
    "ToolCallArguments": "core.events",
    "ToolCallStart": "core.events",
    "Transport": "transports.httpx2",
    "TurnError": "errors",
    "TurnStream": "client",
    "TypedEvent": "core.events",
    "UnbrokenError": "errors",
    "UnexpectedResponse": "errors",
    "Unreachable": "errors",
    "Usage": "core.events",
    "UsageError": "errors",
    "UsageReport": "core.events",
    "wrap": "transports.wrapping",
}

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncTransport",
    "AsyncTurnStream",
    "AttemptReport",
    "CallerTimeout",
    "Client",
    "Failed",
    "Finish",
    "FirstOutputTimeout",
    "MalformedStream",
    "Policy",
    "ProviderError",
    "Reasoning",
    "Refusal",
    "Report",
    "RetryEvent",
    "Signature",
    "StreamCut",
    "Text",
    "ToolCall",
    "ToolCallArguments",
    "ToolCallStart",
    "Transport",
    "TurnError",
    "TurnStream",
    "TypedEvent",
    "UnbrokenError",
    "UnexpectedResponse",
    "Unreachable",
    "Usage",
    "UsageError",
    "UsageReport",
    "__version__",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"unbroken.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unbroken' has no attribute {name!r}")
