"""The typed client: ask a model, iterate over the events of its answer, and get a report.

>>> with unbroken.Client("deepseek").stream("Hello") as turn:
...     for event in turn:
...         ...
...     print(turn.text, turn.usage, turn.report)

The names are resolved on first use: a program that blocks does not load the asynchronous half.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, without the cost of importing it
if TYPE_CHECKING:
    from typing import Any

    from unbroken.client.asynchronous import AsyncClient, AsyncTurnStream
    from unbroken.client.synchronous import Client, TurnStream
    from unbroken.core.answer import Answer, PartialToolCall
    from unbroken.core.providers import PROVIDERS, Provider

_HOMES = {
    "PROVIDERS": "core.providers",
    "Answer": "core.answer",
    "AsyncClient": "client.asynchronous",
    "AsyncTurnStream": "client.asynchronous",
    "Client": "client.synchronous",
    "PartialToolCall": "core.answer",
    "Provider": "core.providers",
    "TurnStream": "client.synchronous",
}

__all__ = [
    "PROVIDERS",
    "Answer",
    "AsyncClient",
    "AsyncTurnStream",
    "Client",
    "PartialToolCall",
    "Provider",
    "TurnStream",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = globals()[name] = getattr(importlib.import_module(f"unbroken.{_HOMES[name]}"), name)
        return found
    raise AttributeError(f"module 'unbroken.client' has no attribute {name!r}")
