"""Transports for httpx, on which groq and litellm are built."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx

from unbroken.transports import shared


class _Body(shared.SyncBody, httpx.SyncByteStream):
    pass


class _AsyncBody(shared.AsyncBody, httpx.AsyncByteStream):
    pass


class Transport(shared.SyncTransport, httpx.BaseTransport):
    __doc__ = shared.SyncTransport.__doc__
    library: ClassVar[ModuleType] = httpx
    body: ClassVar[type[shared.SyncBody]] = _Body


class AsyncTransport(shared.AsyncTransport, httpx.AsyncBaseTransport):
    __doc__ = shared.AsyncTransport.__doc__
    library: ClassVar[ModuleType] = httpx
    body: ClassVar[type[shared.AsyncBody]] = _AsyncBody
