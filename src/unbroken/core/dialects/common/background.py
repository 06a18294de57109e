"""Calls whose response goes on at the server: ``background`` and ``store``, as Responses and Interactions have them."""

from __future__ import annotations

import re

from unbroken.core.http import Request
from unbroken.core.payload import RequestBody
from unbroken.core.resumption.format import BackgroundFormat
from unbroken.core.resumption.requests import about

_REFUSAL = re.compile(rb"\b(?:background|store[ds]?)\b", re.IGNORECASE)


def cancel(request: Request, response: str) -> Request:
    """Return the request that ends a response."""
    return about(request, response, "POST", "/cancel")


def delete(request: Request, response: str) -> Request:
    """Return the request that deletes a response."""
    return about(request, response, "DELETE")


def _storage(body: RequestBody) -> str:
    return str(body.get("store"))


def _is_private(body: RequestBody) -> bool:
    return body.get("store") is False


BACKGROUND = BackgroundFormat(
    fields={"background": True},
    refusal=lambda body: _REFUSAL.search(body) is not None,
    storage=_storage,
    is_private=_is_private,
    cancel=cancel,
    delete=delete,
)
