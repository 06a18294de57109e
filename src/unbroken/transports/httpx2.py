"""Transports for httpx2, on which openai 3, anthropic 2, google-genai, mistralai and others are built."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from unbroken.errors import MissingExtra

try:
    import httpx2
except ImportError as exc:
    raise MissingExtra("the transports for httpx2 need", "httpx2", exc) from None

from unbroken.transports.asynchronous import AsyncRuleBody, AsyncRuleTransport
from unbroken.transports.synchronous import RuleBody, RuleTransport


class Httpx2Body(RuleBody, httpx2.SyncByteStream):
    """The body of a response."""


class AsyncHttpx2Body(AsyncRuleBody, httpx2.AsyncByteStream):
    """The body of a response, for asyncio and trio."""


class Httpx2Transport(RuleTransport, httpx2.BaseTransport):
    __doc__ = RuleTransport.__doc__
    library: ClassVar[ModuleType] = httpx2
    body: ClassVar[type[RuleBody]] = Httpx2Body


class AsyncHttpx2Transport(AsyncRuleTransport, httpx2.AsyncBaseTransport):
    __doc__ = AsyncRuleTransport.__doc__
    library: ClassVar[ModuleType] = httpx2
    body: ClassVar[type[AsyncRuleBody]] = AsyncHttpx2Body


Transport = Httpx2Transport
AsyncTransport = AsyncHttpx2Transport
