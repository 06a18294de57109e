"""The typed client: ask a model, iterate over the events of its answer, and get a report.

>>> with unbroken.Client("deepseek").stream("Hello") as turn:
...     for event in turn:
...         ...
...     print(turn.text, turn.usage, turn.report)
"""

from unbroken.client.asynchronous import AsyncClient, AsyncTurnStream
from unbroken.client.synchronous import Client, TurnStream
from unbroken.core.answer import Answer, PartialToolCall
from unbroken.core.providers import PROVIDERS, Provider

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
