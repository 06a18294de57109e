"""Unbroken keeps streaming LLM turns alive.

The public names are resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # as typing has it, without the cost of importing it
if TYPE_CHECKING:
    from typing import Any

    from unbroken.client import Answer, AsyncClient, AsyncTurnStream, Client, PartialToolCall, TurnStream
    from unbroken.core.actions import RetryEvent
    from unbroken.core.events import (
        Failed,
        Finish,
        Reasoning,
        Refusal,
        Restarted,
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
    from unbroken.core.report import AttemptReport, Progress, Report, SeamReport
    from unbroken.errors import (
        CallerTimeout,
        FirstOutputTimeout,
        MalformedStream,
        MissingExtra,
        ProviderError,
        RestOfAnswer,
        StateError,
        StreamCut,
        TurnError,
        UnbrokenError,
        UnexpectedResponse,
        Unreachable,
        UsageError,
        cause_of,
    )
    from unbroken.transports.httpx2 import AsyncTransport, Transport
    from unbroken.transports.wrapping import wrap

__version__ = "0.1.0"

_HOMES = {
    "Answer": "client",
    "AsyncClient": "client",
    "AsyncTransport": "transports.httpx2",
    "AsyncTurnStream": "client",
    "AttemptReport": "core.report",
    "CallerTimeout": "errors",
    "Client": "client",
    "Failed": "core.events",
    "Finish": "core.events",
    "FirstOutputTimeout": "errors",
    "MalformedStream": "errors",
    "MissingExtra": "errors",
    "PartialToolCall": "client",
    "Policy": "core.policy",
    "Progress": "core.report",
    "ProviderError": "errors",
    "Reasoning": "core.events",
    "Refusal": "core.events",
    "Report": "core.report",
    "RestOfAnswer": "errors",
    "Restarted": "core.events",
    "RetryEvent": "core.actions",
    "SeamReport": "core.report",
    "Signature": "core.events",
    "StateError": "errors",
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
    "cause_of": "errors",
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
    "MissingExtra",
    "PartialToolCall",
    "Policy",
    "Progress",
    "ProviderError",
    "Reasoning",
    "Refusal",
    "Report",
    "RestOfAnswer",
    "Restarted",
    "RetryEvent",
    "SeamReport",
    "Signature",
    "StateError",
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
    "cause_of",
    "wrap",
]


if PathFinder.find_spec("httpx2") is None:  # ``import *`` must work without the extra; the names say what they need
    __all__.remove("AsyncTransport")
    __all__.remove("Transport")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = globals()[name] = getattr(importlib.import_module(f"unbroken.{_HOMES[name]}"), name)
        return found
    raise AttributeError(f"module 'unbroken' has no attribute {name!r}")
