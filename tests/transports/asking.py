"""Asking through a transport, in each library, blocking and not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2

from unbroken import Policy
from unbroken.transports import httpx as for_httpx
from unbroken.transports import httpx2 as for_httpx2

POLICY = Policy(backoff_initial=0.01, backoff_max=0.02, settle_timeout=0.2)
CHAT = {"model": "lab", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "completions": ("/v1/completions", {"model": "lab", "prompt": "Hello?", "stream": True}),
    "responses": ("/v1/responses", {"model": "lab", "input": "Hello?", "stream": True}),
    "anthropic": ("/v1/messages", {"max_tokens": 9, **CHAT}),
    "gemini": ("/v1beta/models/lab:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hello?"}]}]}),
    "interactions": ("/v1beta/interactions", {"model": "lab", "input": "Hello?", "stream": True}),
    "chat, whole": ("/v1/chat/completions", {**CHAT, "stream": False}),
}
"""A path and a body in each dialect."""


@dataclasses.dataclass
class Reply:
    """What came of asking."""

    status: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    data: bytes = b""
    error: Exception | None = None
    report: Any = None
    http_version: str = ""


@dataclasses.dataclass(frozen=True)
class Way:
    """A library, blocking or not."""

    library: ModuleType
    transports: ModuleType
    is_async: bool

    def __str__(self) -> str:
        return f"{self.library.__name__}{'-async' if self.is_async else ''}"

    def transport(self, **options: Any) -> Any:
        make = self.transports.AsyncTransport if self.is_async else self.transports.Transport
        return make(**{"policy": POLICY, **options})

    def client(self, transport: Any, **options: Any) -> Any:
        make = self.library.AsyncClient if self.is_async else self.library.Client
        return make(transport=transport, **{"timeout": None, **options})

    def plain(self, handle: Callable[[Any], Any]) -> Any:
        """A transport of the library's that answers by a function."""
        return self.library.MockTransport(handle)

    def post(self, url: str, call: Any = CHAT, **options: Any) -> Reply:
        """Post a body as JSON."""
        headers = {"content-type": "application/json"}
        return self.request("POST", url, content=json.dumps(call).encode(), headers=headers, **options)

    def request(
        self,
        method: str,
        url: str,
        *,
        timeout: Any = None,
        transport: Any = None,
        headers: Any = None,
        content: Any = None,
        extensions: Any = None,
        **options: Any,
    ) -> Reply:
        """Make one request and read the answer piece by piece, whatever comes of it."""
        transport = transport or self.transport(**options)
        request = {"method": method, "url": url, "content": content, "headers": headers, "extensions": extensions}
        if self.is_async:
            return anyio.run(self._ask, transport, request, timeout)
        reply = Reply()
        try:
            with (
                self.client(transport, timeout=timeout) as client,
                client.stream(**request) as response,
            ):
                _note(reply, response)
                for piece in response.iter_raw():
                    reply.data += piece
        except Exception as exc:  # noqa: BLE001 - it is looked at
            reply.error = exc
        return reply

    async def _ask(self, transport: Any, request: dict[str, Any], timeout: Any) -> Reply:
        reply = Reply()
        try:
            async with (
                self.client(transport, timeout=timeout) as client,
                client.stream(**request) as response,
            ):
                _note(reply, response)
                async for piece in response.aiter_raw():
                    reply.data += piece
        except Exception as exc:  # noqa: BLE001 - it is looked at
            reply.error = exc
        return reply


def _note(reply: Reply, response: Any) -> None:
    reply.status = response.status_code
    reply.headers = dict(response.headers)
    reply.report = response.extensions.get("unbroken")
    reply.http_version = response.http_version


WAYS = [
    Way(library, transports, is_async)
    for library, transports in ((httpx2, for_httpx2), (httpx, for_httpx))
    for is_async in (False, True)
]
