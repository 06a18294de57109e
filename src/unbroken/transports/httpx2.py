"""Transports for httpx2, on which openai 3, anthropic 2, google-genai, mistralai
and others are built.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx2

from unbroken.transports import shared


class _Body(shared.SyncBody, httpx2.SyncByteStream):
    pass


class _AsyncBody(shared.AsyncBody, httpx2.AsyncByteStream):
    pass


class Transport(shared.SyncTransport, httpx2.BaseTransport):
    __doc__ = shared.SyncTransport.__doc__
    library: ClassVar[ModuleType] = httpx2
    body: ClassVar[type[shared.SyncBody]] = _Body


class AsyncTransport(shared.AsyncTransport, httpx2.AsyncBaseTransport):
    __doc__ = shared.AsyncTransport.__doc__
    library: ClassVar[ModuleType] = httpx2
    body: ClassVar[type[shared.AsyncBody]] = _AsyncBody
