"""Transports for httpx, on which groq and litellm are built."""

from __future__ import annotations

import httpx

from unbroken.transports import shared


class _Body(shared.SyncBody, httpx.SyncByteStream):
    pass


class _AsyncBody(shared.AsyncBody, httpx.AsyncByteStream):
    pass


class Transport(shared.SyncTransport, httpx.BaseTransport):
    __doc__ = shared.SyncTransport.__doc__
    library = httpx
    body = _Body


class AsyncTransport(shared.AsyncTransport, httpx.AsyncBaseTransport):
    __doc__ = shared.AsyncTransport.__doc__
    library = httpx
    body = _AsyncBody
