"""Transports for httpx, on which groq and litellm are built."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from unbroken.errors import MissingExtra

try:
    import httpx
except ImportError as exc:
    raise MissingExtra("the transports for httpx need", "httpx", exc) from None

from unbroken.transports.asynchronous import AsyncRuleBody, AsyncRuleTransport
from unbroken.transports.synchronous import RuleBody, RuleTransport


class HttpxBody(RuleBody, httpx.SyncByteStream):
    """The body of a response."""


class AsyncHttpxBody(AsyncRuleBody, httpx.AsyncByteStream):
    """The body of a response, for asyncio and trio."""


class HttpxTransport(RuleTransport, httpx.BaseTransport):
    __doc__ = RuleTransport.__doc__
    library: ClassVar[ModuleType] = httpx
    body: ClassVar[type[RuleBody]] = HttpxBody


class AsyncHttpxTransport(AsyncRuleTransport, httpx.AsyncBaseTransport):
    __doc__ = AsyncRuleTransport.__doc__
    library: ClassVar[ModuleType] = httpx
    body: ClassVar[type[AsyncRuleBody]] = AsyncHttpxBody


Transport = HttpxTransport
AsyncTransport = AsyncHttpxTransport
